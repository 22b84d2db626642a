"""Results that hold an answer for every image, as text of one line: no tensor is written out."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from torch import Tensor

FEW = 4  # numbers of a tensor that are worth reading


def brief(result: Any) -> str:
    """Return a dataclass as ``Name(accuracy=0.9, robust=<250 bool>)``, its ``__repr__``.

    Tensors stand as their sizes and kind; one of a few numbers as these.
    """
    named = [f"{f.name}={_brief(getattr(result, f.name))}" for f in fields(result) if f.repr]
    return f"{type(result).__name__}({', '.join(named)})"


def _brief(value: Any) -> str:
    if not isinstance(value, Tensor):
        return repr(value)
    if value.ndim <= 1 and value.numel() <= FEW:
        return repr(value.tolist())
    sizes = " x ".join(map(str, value.shape))
    return f"<{sizes} {str(value.dtype).removeprefix('torch.')}>"
