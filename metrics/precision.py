"""Which precision numbers are computed in: the full float32 that they are stored in, at least."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def full_float32() -> Iterator[None]:
    """Keep convolutions and matrix products from rounding to TF32 or bfloat16, on any device.

    Torch has two ways to ask for that, an old one for everything and a new one for each operation;
    code that reads either must find it said. Each is put back as it was.
    """
    backends: Any = torch.backends
    convolutions = _old(lambda: backends.cudnn.allow_tf32)
    products = _old(torch.get_float32_matmul_precision)
    operations = [
        backends.cudnn.conv,
        backends.cudnn.rnn,
        backends.cuda.matmul,
        backends.mkldnn.conv,
        backends.mkldnn.rnn,
        backends.mkldnn.matmul,
    ]
    found = [operation.fp32_precision for operation in operations]
    if convolutions is not None:
        backends.cudnn.allow_tf32 = False
    if products is not None:
        torch.set_float32_matmul_precision("highest")
    for operation in operations:
        operation.fp32_precision = "ieee"
    try:
        yield
    finally:
        if convolutions is not None:
            backends.cudnn.allow_tf32 = convolutions
        if products is not None:
            torch.set_float32_matmul_precision(products)
        for operation, before in zip(operations, found, strict=True):
            operation.fp32_precision = "none"  # follow the general setting, where it did so before
            if operation.fp32_precision != before:
                operation.fp32_precision = before


def _old(read: Callable[[], Any]) -> Any:
    """Return a setting of the old way, or None where the new one has overruled it."""
    try:
        return read()
    except RuntimeError:
        return None


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
