"""Lines below and above what bends: ReLU, leaky ReLU, the absolute value, max pools.

Between l and u, a function with one bend at 0 lies on one side of its chord, and on the other side
of every line through 0 whose slope lies between its own two (Zhang et al. 2018, arXiv 1811.00866).
A maximum is no less than any of its inputs; and with u' the second largest upper bound, it is no
more than the larger of u' and the input of the largest, which lies below its own chord.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from metrics.bounds.linear.interval import Interval
from metrics.bounds.linear.rows import Rows, gathered, viewed, whole, whole_rows
from metrics.bounds.operations import Activation, Operation, Pool, windows

Shape = tuple[int, ...]
Step = tuple[tuple[int, int, int, int], tuple[int, int, int, int]]


@dataclass(frozen=True, eq=False)
class Lines:
    """Lines below and above each unit of a step, ``(N, *shape)`` each.

    Attributes:
        lower_slope, lower_shift, upper_slope, upper_shift: of one input of the unit; no shift is 0.
        lower_place, upper_place: which input, counted through its map; None is the same unit.
        step: kernel, stride, padding and dilation of a pool along height and width; None where its
            windows have none.
    """

    lower_slope: Tensor
    lower_shift: Tensor | None
    upper_slope: Tensor
    upper_shift: Tensor
    lower_place: Tensor | None = None
    upper_place: Tensor | None = None
    step: Step | None = None


def bend(operation: Operation) -> float | None:
    """Return the slope below 0 of what is the identity above and has its only bend at 0."""
    if not isinstance(operation, Activation):
        return None
    keywords = operation.function.keywords if isinstance(operation.function, partial) else {}
    if operation.name == "leaky_relu":
        return float(keywords["negative_slope"])
    if operation.name == "clamp":
        return 0.0 if (keywords["min"], keywords["max"]) == (0, torch.inf) else None
    return {"relu": 0.0, "abs": -1.0}.get(operation.name)


def activation_lines(slope: float, z: Interval) -> Lines:
    """Return the lines of a function with ``slope`` below 0 and 1 above, for z.

    The line through 0 has whichever of the two slopes leaves the smaller area to the chord.
    """
    low, high = z.lower, z.upper
    across = (low < 0) & (high > 0)
    span = torch.where(across, high - low, 1)
    chord = ((high - slope * low) / span).clamp(min(slope, 1.0), max(slope, 1.0))
    straight = torch.ones_like(high).where(high > 0, slope)  # of two numbers: float32
    through = torch.where(across & (high <= -low), slope, straight)
    chord_slope = torch.where(across, chord, straight)
    chord_shift = torch.where(across, high * (1 - chord), 0)
    if slope <= 1:
        return Lines(through, None, chord_slope, chord_shift)
    return Lines(chord_slope, chord_shift, through, torch.zeros_like(low))


def pool_lines(pool: Pool, z: Interval) -> Lines:
    """Return the lines of a max pool over maps z ``(N, C, H, W)``."""
    places, real = _places(pool, z.lower)
    low = z.lower.flatten(2)[:, :, places].where(real, -torch.inf)
    high = z.upper.flatten(2)[:, :, places].where(real, -torch.inf)
    lowest, first = low.max(3)
    highest, top = high.max(3)
    second = high.scatter(3, top[..., None], -torch.inf).amax(3)
    least = low.gather(3, top[..., None])[..., 0]
    certain = second <= least  # the input with the largest upper bound is the maximum
    span = torch.where(certain, 1, highest - least)
    slope = torch.where(certain, 1, ((highest - second) / span).clamp(0, 1))
    shift = torch.where(certain, 0, highest * (1 - slope))
    lower = torch.where(certain, top, first)
    shape = (*z.lower.shape[:2], len(pool.rows), len(pool.columns))
    spread = places.expand(*low.shape)
    lower_place, upper_place = (
        spread.gather(3, index[..., None])[..., 0].view(shape) for index in (lower, top)
    )
    return Lines(
        torch.ones_like(slope).view(shape),
        None,
        slope.view(shape),
        shift.view(shape),
        lower_place,
        upper_place,
        _regular(pool, tuple(z.lower.shape[1:])),
    )


def undecided(operation: Operation, z: Interval) -> Tensor:
    """Return which units of z ``(N, *shape)`` a bend or a maximum depends on."""
    if not isinstance(operation, Pool):
        return (z.lower < 0) & (z.upper > 0)
    places, real = _places(operation, z.lower)
    low = z.lower.flatten(2)[:, :, places].where(real, -torch.inf)
    high = z.upper.flatten(2)[:, :, places].where(real, -torch.inf)
    candidates = real & (high > low.amax(3, keepdim=True))
    several = candidates.sum(3, keepdim=True) > 1
    found = torch.zeros_like(z.lower).flatten(2)
    flat = places.flatten().expand(*found.shape[:2], -1)
    found.scatter_add_(2, flat, (candidates & several).to(found).flatten(2))
    return (found > 0).view(z.lower.shape)


def below(lines: Lines, operation: Operation, rows: Rows, source: Shape) -> tuple[Rows, Tensor]:
    """Return a lower bound of rows over a step's output, as rows over its input and constants.

    Coefficients above 0 take the line below, the others the line above.

    Args:
        lines: of the step.
        operation: of the step.
        rows: R of them.
        source: shape of the input.
    """
    down = rows.values.clamp_max(0)
    constant = (down * gathered(lines.upper_shift, rows)).flatten(1).sum(1)
    if lines.lower_shift is not None:
        up = rows.values.clamp_min(0)
        constant = constant + (up * gathered(lines.lower_shift, rows)).flatten(1).sum(1)
    if lines.lower_place is None or lines.upper_place is None:
        values = rows.values * gathered(lines.lower_slope, rows)
        change = gathered(lines.upper_slope - lines.lower_slope, rows)
        return rows.over(torch.addcmul(values, down, change), rows.corner), constant
    parts = rows.values.clamp_min(0), down * gathered(lines.upper_slope, rows)
    places = lines.lower_place, lines.upper_place
    if rows.corner is None or lines.step is None:
        full = lines.upper_slope.shape[1:]
        values = rows.values.new_zeros(len(rows.values), source[0], source[1] * source[2])
        for part, place in zip(parts, places, strict=True):
            spread = whole(rows.over(part, rows.corner), full)
            index = gathered(place, spread).flatten(2)
            values.scatter_add_(2, index, spread.values.flatten(2))
        return whole_rows(values.view(-1, *source), rows.image), constant
    return _windowed(places, lines.step, rows, parts, source), constant


def _windowed(
    places: tuple[Tensor, Tensor],
    step: Step,
    rows: Rows,
    parts: tuple[Tensor, Tensor],
    source: Shape,
) -> Rows:
    """Return rows over the windows that windows of a pool read."""
    assert rows.corner is not None
    (k0, s0, p0, d0), (k1, s1, p1, d1) = step
    h = (parts[0].shape[2] - 1) * s0 + d0 * (k0 - 1) + 1
    w = (parts[0].shape[3] - 1) * s1 + d1 * (k1 - 1) + 1
    corner = torch.stack([rows.corner[:, 0] * s0 - p0, rows.corner[:, 1] * s1 - p1], 1)
    values = parts[0].new_zeros(len(rows.values), source[0], h * w)
    y, x = (c.view(-1, 1, 1, 1) for c in corner.unbind(1))
    for part, place in zip(parts, places, strict=True):
        at = viewed(place, rows)
        index = (at // source[2] - y).clamp(0, h - 1) * w + (at % source[2] - x).clamp(0, w - 1)
        values.scatter_add_(2, index.flatten(2).index_select(0, rows.view), part.flatten(2))
    return rows.over(values.view(-1, source[0], h, w), corner)


def _places(pool: Pool, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return which places of a map each output reads ``(outputs, k)``, and which are real."""
    width = like.shape[3]
    read = [
        [r * width + c for r in rows for c in columns]
        for rows in pool.rows
        for columns in pool.columns
    ]
    most = max(map(len, read))
    places = torch.tensor([p + p[:1] * (most - len(p)) for p in read], device=like.device)
    real = torch.tensor([[i < len(p) for i in range(most)] for p in read], device=like.device)
    return places, real


def _regular(pool: Pool, source: Shape) -> Step | None:
    """Return kernel, stride, padding and dilation along both axes, if the windows have them."""
    found = []
    for axis, read in enumerate((pool.rows, pool.columns)):
        size, kernel = source[1 + axis], pool.kernel[axis]
        longest = max(read, key=len)
        dilation = longest[1] - longest[0] if len(longest) > 1 else 1
        fitting = (
            (kernel, stride, padding, dilation)
            for stride in range(1, size + 1)
            for padding in range(kernel)
            if windows(size, kernel, stride, padding, dilation, len(read)) == read
        )
        found.append(next(fitting, None))
    return (found[0], found[1]) if found[0] and found[1] else None
