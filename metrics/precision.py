"""Which precision numbers are computed in: the full float32 that they are stored in, at least."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_lock = threading.Lock()
_inside = 0
_found: list[tuple[Any, str]] = []


@contextmanager
def full_float32(*, autocast: bool = False) -> Iterator[None]:
    """Keep convolutions and matrix products from rounding to TF32 or bfloat16, on any device.

    Whoever comes in first, in any thread, saves the settings; the last one out puts them back.

    Args:
        autocast: leave the caller's autocast on: training decides its precision itself.
    """
    global _inside  # noqa: PLW0603
    with _lock:
        if not _inside:
            _ask_for_full()
        _inside += 1
    try:
        with ExitStack() as switched:
            for device in () if autocast else ("cpu", "cuda"):
                if torch.is_autocast_enabled(device):
                    switched.enter_context(torch.autocast(device, enabled=False))
            yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                while _found:
                    setting, before = _found.pop()
                    setting.fp32_precision = before


def _ask_for_full() -> None:
    """Set the general precision, and that of operations that do not follow it.

    From the top: what follows another setting is then found full already, and goes on following.
    """
    for setting in precision_settings():
        if setting.fp32_precision != "ieee":
            _found.append((setting, setting.fp32_precision))
            setting.fp32_precision = "ieee"


def precision_settings() -> list[Any]:
    """Return what has an ``fp32_precision``, the general one first."""
    backends: Any = torch.backends
    return [
        backends,
        backends.cudnn,
        backends.cudnn.conv,
        backends.cudnn.rnn,
        backends.cuda.matmul,
        backends.mkldnn.conv,
        backends.mkldnn.rnn,
        backends.mkldnn.matmul,
    ]


def widened(v: Tensor) -> Tensor:
    """Return ``v`` in float32; float64 stays float64."""
    return v if v.dtype in (torch.float32, torch.float64) else v.float()


def rounding(model: nn.Module, outputs: Tensor) -> float:
    """Return the relative rounding error of ``outputs``: of the coarsest type on their way.

    Those are the types of the outputs and of the parameters, and half precision where every
    output is one of its values: a model that ends in ``.float()``, or runs under autocast.
    """
    kinds = {outputs.dtype, *(p.dtype for p in model.parameters())}
    for half in (torch.bfloat16, torch.float16):
        if torch.equal(outputs.to(half).to(outputs.dtype), outputs):
            kinds.add(half)
    return max(torch.finfo(kind).eps for kind in kinds if kind.is_floating_point)
