"""One trial after another in one process: what a worker does."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from metrics.deadline import limited
from metrics.engine.device_faults import device_fault
from metrics.engine.memory import out_of_memory
from nas.data.arrays import Data, Images, prepare
from nas.errors import DeviceFault, InputError, one_line
from nas.trial.checkpoint import Checkpoints
from nas.trial.evaluation import Evaluation, evaluation
from nas.trial.repeats import repeated
from nas.trial.state import Epoch
from nas.trial.trial import Trial
from search_spaces import Architecture


class TrialRunner:
    """Runs one trial after another in one process, the images staying on the device.

    Args:
        template: the trial of which every other is a copy, its architecture aside.
        images: by ``DataConfig.source``.
        device: ``cpu`` or ``cuda``.
        threads: of torch on the CPU.
        time_limit_seconds: of one trial, all its repeats.
        processes: that train a trial, each with so many threads or a GPU of its own.
    """

    def __init__(
        self,
        template: Trial,
        images: Mapping[tuple[str, str | None, int | None], Images],
        *,
        device: str,
        threads: int,
        time_limit_seconds: float | None = None,
        processes: int = 1,
    ) -> None:
        torch.set_num_threads(threads)
        self._template, self._images, self._device = template, images, device
        self._limit, self._processes = time_limit_seconds, processes
        self._prepared: tuple[str, Data] | None = None

    def trial(self, architecture: Mapping[str, Any], overrides: Mapping[str, Any]) -> Trial:
        """Return the trial of an architecture's dict and what it varies beside."""
        trial = replace(self._template, architecture=Architecture.from_dict(architecture))
        for name, value in overrides.items():
            trial = trial.varied(name, value)
        return trial

    def run(
        self,
        trial: Trial,
        *,
        micro_batch: int | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> Generator[Epoch, None, Evaluation]:
        """Do what :func:`evaluation` does, for every repeat.

        A dataset that cannot be prepared fails the trial. What a trial that goes on from
        ``checkpoints`` has spent in earlier processes counts towards the limit.
        """
        if self._prepared is None or self._prepared[0] != trial.data.hash:
            self._prepared = None  # the old dataset makes room for the new one
            try:
                images = self._images[trial.data.source]
                self._prepared = trial.data.hash, prepare(images, trial.data, self._device)
            except InputError as error:
                return Evaluation("invalid", str(error))
            except (MemoryError, RuntimeError) as error:
                if device_fault(error):
                    raise DeviceFault(one_line(error)) from error
                if not out_of_memory(error):
                    raise
                return Evaluation("oom", f"the dataset does not fit: {one_line(error)}")
        several = self._processes > 1  # each of which would have to go on from the same epoch
        kept = Checkpoints() if checkpoints is None or several else checkpoints
        run = partial(
            evaluation,
            data=self._prepared[1],
            micro_batch=micro_batch,
            checkpoints=kept,
            processes=self._processes,
        )
        steps = repeated(run, trial)
        return (yield from limited(steps, self._limit, before=lambda: kept.spent))
