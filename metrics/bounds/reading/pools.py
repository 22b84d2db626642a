"""Pools over windows, over whole axes, and adaptive ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from metrics.bounds.operations import (
    Pool,
    Rearrangement,
    Unknown,
    Windows,
    adaptive_windows,
    windows,
)
from metrics.bounds.reading.reader import Reader, Ref, called, name_of, pair

Window = tuple[tuple[int, int], tuple[int, int], tuple[int, int], tuple[int, int]]
"""Kernel, stride, padding and dilation along height and width."""


def max_pool(
    reader: Reader,
    node: Any,
    x: Ref,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil: bool = False,
) -> Ref:
    """max_pool2d."""
    k, s, p, d = window = _window(kernel, stride, padding, dilation)

    def function(v: Tensor) -> Tensor:
        return functional.max_pool2d(v, k, s, p, d, ceil)

    return _pool(reader, node, "max", x, window, function)


def average_pool(
    reader: Reader,
    node: Any,
    x: Ref,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil: bool = False,
    count_padding: bool = True,
    divisor: int | None = None,
) -> Ref:
    """avg_pool2d."""
    k, s, p, d = window = _window(kernel, stride, padding)
    outputs = node.meta["val"].shape[2:]
    heights, widths = (
        _counts(size, k[a], s[a], p[a], int(outputs[a]), padded=count_padding)
        for a, size in enumerate(reader.shape(x)[1:])
    )
    if divisor:
        heights, widths = torch.full_like(heights, divisor), torch.ones_like(widths)

    def function(v: Tensor) -> Tensor:
        return functional.avg_pool2d(v, k, s, p, ceil, count_padding, divisor)

    return _pool(reader, node, "average", x, window, function, divisors=(heights, widths))


def power_pool(reader: Reader, node: Any) -> Ref | None:
    """Return the L_p pool that ends in this power, where it is the last step of torch's.

    That is (sign(a) relu(|a|) k)^(1/p) with a the average of x^p over windows of k values.

    Raises:
        Unknown: an odd p > 1 of what may be negative, where powers cancel: it has no norm.
    """
    chain = _chain(node, ("mul", "mul", "sign", "avg_pool2d", "pow"))
    if chain is None or not isinstance(node.args[1], float | int):
        return None
    average, powered = chain[3], chain[4]
    x, p = reader.value_of(powered.args[0]), powered.args[1]
    kernel, stride, padding, ceil = _filled(average.args[1:], (0, (), 0, False))
    window = _window(kernel, stride, padding)
    whole = chain[0].args[1] == math.prod(window[0]) and window[2] == (0, 0)
    if not (isinstance(x, Ref) and whole and p >= 1 and math.isclose(node.args[1] * p, 1)):
        return None
    if p > 1 and p % 2 and not reader.entries[x.entry].nonnegative:
        raise Unknown(f"an L_{p:g} pool of values that may be negative")

    def function(v: Tensor) -> Tensor:
        return functional.lp_pool2d(v, p, window[0], window[1], bool(ceil))

    return _pool(reader, node, "power", x, window, function, power=float(p))


def adaptive_average(reader: Reader, node: Any, x: Ref, size: Any) -> Ref:
    """adaptive_avg_pool2d, global ones among them."""
    out = pair(size)
    return _adaptive(
        reader, node, "average", x, out, lambda v: functional.adaptive_avg_pool2d(v, out)
    )


def adaptive_max(reader: Reader, node: Any, x: Ref, size: Any) -> list[Ref]:
    """adaptive_max_pool2d; its second output, the places, is not read."""
    out = pair(size)
    return [
        _adaptive(reader, node, "max", x, out, lambda v: functional.adaptive_max_pool2d(v, out))
    ]


def mean(reader: Reader, node: Any, x: Ref, axes: Any = None, keep: bool = False, **_: Any) -> Ref:
    """mean over whole axes."""
    return _over_axes(reader, node, "average", x, axes)


def total(reader: Reader, node: Any, x: Ref, axes: Any = None, keep: bool = False, **_: Any) -> Ref:
    """sum over whole axes."""
    return _over_axes(reader, node, "sum", x, axes)


def amax(reader: Reader, node: Any, x: Ref, axes: Any = (), keep: bool = False) -> Ref:
    """amax over whole axes."""
    return _over_axes(reader, node, "max", x, axes)


def _pool(
    reader: Reader,
    node: Any,
    kind: str,
    x: Ref,
    window: Window,
    function: Callable[[Tensor], Tensor],
    *,
    divisors: tuple[Tensor, Tensor] | None = None,
    power: float = 2.0,
) -> Ref:
    shape = node.meta["val"].shape
    if len(shape) != 4:
        raise Unknown(f"{called(node)} of {len(shape)} axes")
    k, s, p, d = window
    rows, columns = (
        windows(size, k[a], s[a], p[a], d[a], int(shape[2 + a]))
        for a, size in enumerate(reader.shape(x)[1:])
    )
    pool = Pool(kind, rows, columns, function, divisors, power, window[0])
    return reader.step(node, pool, x)


def _adaptive(
    reader: Reader,
    node: Any,
    kind: str,
    x: Ref,
    size: tuple[int, int],
    function: Callable[[Tensor], Tensor],
) -> Ref:
    shape = reader.shape(x)
    if len(shape) != 3:
        raise Unknown(f"{called(node)} of {len(shape) + 1} axes")
    rows, columns = (adaptive_windows(shape[a + 1], size[a]) for a in (0, 1))
    divisors = (_lengths(rows), _lengths(columns)) if kind == "average" else None
    kernel = (max(map(len, rows)), max(map(len, columns)))
    pool = Pool(kind, rows, columns, function, divisors, kernel=kernel)
    return reader.add(node, pool, (reader.batch, shape[0], *size), x)


def _over_axes(reader: Reader, node: Any, kind: str, x: Ref, axes: Any) -> Ref:
    """Put what is reduced into one row, pool it whole, and give the result the node's shape."""
    shape = (reader.batch, *reader.shape(x))
    over = sorted(a % len(shape) for a in ([axes] if isinstance(axes, int) else axes or ()))
    if not over or 0 in over:
        raise Unknown(f"{called(node)} over the images of a batch")
    kept = [a for a in range(1, len(shape)) if a not in over]
    rows, size = math.prod(shape[a] for a in kept), math.prod(shape[a] for a in over)

    def line_up(v: Tensor) -> Tensor:
        return v.permute(0, *kept, *over).reshape(len(v), rows, 1, size)

    moved = Rearrangement("permute", line_up, keeps_sign=True)
    x = reader.add(node, moved, (reader.batch, rows, 1, size), x)
    one, row = ((0,),), (tuple(range(size)),)
    if kind == "average":
        divisors = (_lengths(one), _lengths(row))
        pool = Pool(kind, one, row, lambda v: v.mean(3, True), divisors, kernel=(1, size))
    elif kind == "sum":  # an average that is divided by 1
        divisors = (_lengths(one), _lengths(one))
        pool = Pool("average", one, row, lambda v: v.sum(3, True), divisors, kernel=(1, size))
    else:
        pool = Pool(kind, one, row, lambda v: v.amax(3, True), kernel=(1, size))
    x = reader.add(node, pool, (reader.batch, rows, 1, 1), x)
    out = tuple(node.meta["val"].shape)[1:]
    back = Rearrangement("reshape", lambda v: v.reshape(len(v), *out), keeps_sign=True)
    return reader.add(node, back, (reader.batch, *out), x)


def _window(kernel: Any, stride: Any, padding: Any, dilation: Any = 1) -> Window:
    k = pair(kernel)
    return k, pair(stride) if stride else k, pair(padding), pair(dilation)


def _filled(given: Sequence[Any], defaults: Sequence[Any]) -> list[Any]:
    """Return what is ``given`` of so many settings, and the ``defaults`` of the rest."""
    return [*given[: len(defaults)], *defaults[len(given) :]]


def _lengths(read: Windows) -> Tensor:
    return torch.tensor([len(places) for places in read], dtype=torch.float64)


def _counts(size: int, k: int, s: int, p: int, outputs: int, *, padded: bool) -> Tensor:
    """Return ``(outputs,)``: the length of each window of an average along an axis."""
    starts = [s * i - p for i in range(outputs)]
    ends = [min(start + k, size + p) for start in starts]
    if not padded:
        starts, ends = [max(0, v) for v in starts], [min(size, v) for v in ends]
    return torch.tensor([e - b for b, e in zip(starts, ends, strict=True)], dtype=torch.float64)


def _chain(node: Any, names: Sequence[str]) -> list[Any] | None:
    """Return the nodes that lead to ``node`` by first arguments, if they have these names."""
    found = []
    for name in names:
        node = node.args[0] if node.args else None
        if not isinstance(node, torch.fx.Node) or name_of(node) != name:
            return None
        found.append(node)
    return found
