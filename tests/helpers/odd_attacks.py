"""Attacks that go wrong in the second of several processes alone, for recipes to name."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import distributed

from metrics.attacks import PGD


@dataclass(frozen=True, kw_only=True)
class _Odd(PGD):
    steps: int = 1

    def perturb(self, model, x, labels, generator):
        if distributed.is_initialized() and distributed.get_rank() == 1:
            self.go_wrong()
        return super().perturb(model, x, labels, generator)

    def go_wrong(self):
        raise NotImplementedError


class OutOfMemory(_Odd):
    def go_wrong(self):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")


class Wrong(_Odd):
    def go_wrong(self):
        raise KeyError("on purpose")


class Killed(_Odd):
    def go_wrong(self):
        os.kill(os.getpid(), signal.SIGKILL)


class Hangs(_Odd):
    """From its fifth batch on."""

    calls: ClassVar[Iterator[int]] = itertools.count()

    def go_wrong(self):
        if next(self.calls) >= 4:
            time.sleep(1000)
