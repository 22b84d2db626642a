"""Values moved, repeated or left out within an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from metrics.bounds.operations import Rearrangement, Unknown
from metrics.bounds.reading.reader import Reader, Ref, name_of


def moved(reader: Reader, node: Any, x: Ref, *args: Any, **kwargs: Any) -> Ref:
    """Whatever moves values within an image: its output is reshaped to the node's shape."""
    shape = tuple(node.meta["val"].shape)[1:]
    made = Rearrangement("reshape", lambda v: v.reshape(len(v), *shape), keeps_sign=True)
    return reader.step(node, made, x)


def permuted(reader: Reader, node: Any, x: Ref, axes: Sequence[int]) -> Ref:
    """permute, the batch first."""
    order = [a % len(axes) for a in axes]
    if order[0] != 0:
        raise Unknown("aten.permute of the batch")
    made = Rearrangement("permute", lambda v: v.permute(order), keeps_sign=True)
    return reader.step(node, made, x)


def transposed(reader: Reader, node: Any, x: Ref, a: int, b: int) -> Ref:
    """transpose of two axes."""
    axes = list(range(1 + len(reader.shape(x))))
    axes[a], axes[b] = axes[b], axes[a]
    return permuted(reader, node, x, axes)


def sliced(
    reader: Reader,
    node: Any,
    x: Ref,
    axis: int = 0,
    start: Any = None,
    end: Any = None,
    step: int = 1,
) -> Ref:
    """slice along one axis."""
    whole = start in (None, 0) and (end is None or end >= reader.batch) and step == 1
    if axis == 0 and whole:
        return x
    if axis == 0:
        raise Unknown("aten.slice of the batch")
    axis %= 1 + len(reader.shape(x))
    return reader.step(node, _slice(axis, start, end, step), x)


def selected(reader: Reader, node: Any, x: Ref, axis: int, place: int) -> Ref:
    """select one place of an axis, which goes."""
    axis %= 1 + len(reader.shape(x))
    if axis == 0:
        raise Unknown("aten.select of the batch")
    made = Rearrangement("select", lambda v: v.select(axis, place), keeps_sign=True)
    return reader.step(node, made, x)


def rolled(reader: Reader, node: Any, x: Ref, by: Any, axes: Any = ()) -> Ref:
    """roll along axes."""
    if not axes or 0 in [a % (1 + len(reader.shape(x))) for a in axes]:
        raise Unknown("aten.roll of the batch")
    made = Rearrangement("roll", lambda v: v.roll(by, axes), keeps_sign=True)
    return reader.step(node, made, x)


def chunks(reader: Reader, node: Any, x: Ref, *args: Any) -> list[Ref]:
    """chunk and split along an axis."""
    name = name_of(node)
    whole = torch.empty(reader.batch, *reader.shape(x), device="meta")
    cut = torch.chunk if name == "chunk" else torch.split
    parts, axis = cut(whole, *args), (args[1] if len(args) > 1 else 0) % whole.ndim
    if axis == 0:
        raise Unknown(f"aten.{name} of the batch")
    found, start = [], 0
    for part in parts:
        end = start + part.shape[axis]
        found.append(reader.add(node, _slice(axis, start, end), tuple(part.shape), x))
        start = end
    return found


def _slice(axis: int, start: Any, end: Any, step: int = 1) -> Rearrangement:
    index = (slice(None),) * axis + (slice(start, end, step),)
    return Rearrangement("slice", lambda v: v[index], keeps_sign=True)


def padded(
    reader: Reader, node: Any, x: Ref, pads: Any, mode: str = "constant", value: Any = None
) -> Ref:
    """pad, in any mode."""
    shape = reader.shape(x)
    if len(pads) > 2 * len(shape):
        raise Unknown("aten.pad of the batch")
    settings = {"value": float(value or 0)} if mode == "constant" else {}

    def function(v: Tensor) -> Tensor:
        return functional.pad(v, list(pads), mode=mode, **settings)

    # The places themselves, padded in the same way, say how often each comes; 0 is a constant's.
    places = torch.arange(1.0, math.prod(shape) + 1, dtype=torch.float64).view(1, *shape)
    went = functional.pad(places, list(pads), mode=mode)
    copies = int(torch.bincount(went.flatten().long())[1:].max())
    made = Rearrangement("pad", function, copies, keeps_sign=float(value or 0) >= 0)
    return reader.add(node, made, (reader.batch, *went.shape[1:]), x)


def dropout(reader: Reader, node: Any, x: Ref, share: float, train: bool) -> Ref:
    """dropout, which does nothing outside of training."""
    if train and share > 0:
        raise Unknown("dropout in training")
    return x


def same(reader: Reader, node: Any, x: Ref, *args: Any, **kwargs: Any) -> Ref:
    """Copies of the same values."""
    return x


def cast(reader: Reader, node: Any, x: Ref, *args: Any, **kwargs: Any) -> Ref:
    """to: between float32 and float64."""
    if node.meta["val"].dtype not in (torch.float32, torch.float64):
        raise Unknown(f"a cast to {node.meta['val'].dtype}")
    return x
