"""Linear functions of a step's output, many at a time, each of one image of a batch.

A row that starts at a unit of a convolution looks at a window of each earlier map. Only the window
is kept: that is what makes bounds on every unit of a convolution affordable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, eq=False)
class Rows:
    """R linear functions of a step's output.

    Attributes:
        values: their coefficients, ``(R, *shape)``, or ``(R, C, h, w)`` of a window of maps; those
            that lie outside of the map are 0.
        owner: ``(R,)``, the image of the batch that each belongs to.
        corner: ``(R, 2)``, where each window begins, possibly outside; None is the whole.
    """

    values: Tensor
    owner: Tensor
    corner: Tensor | None = None


def unit_rows(
    shape: Sequence[int], owner: Tensor, units: Tensor, sign: Tensor, *, window: bool
) -> Rows:
    """Return rows that are each one unit of a step, times ``sign``.

    Args:
        shape: of the step's output.
        owner, units, sign: ``(R,)``; units are counted through the output.
        window: let them be windows of 1 x 1; only for maps ``(C, H, W)``.
    """
    count = torch.arange(len(units), device=units.device)
    if not window:
        values = torch.zeros(len(units), torch.Size(shape).numel(), dtype=torch.float64)
        values = values.to(units.device)
        values[count, units] = sign
        return Rows(values.view(-1, *shape), owner)
    channels, height, width = shape
    values = torch.zeros(len(units), channels, dtype=torch.float64, device=units.device)
    values[count, units // (height * width)] = sign
    place = units % (height * width)
    return Rows(values[:, :, None, None], owner, torch.stack([place // width, place % width], 1))


def gathered(maps: Tensor, rows: Rows, *, shared: bool = False) -> Tensor:
    """Return what ``maps`` ``(N, *shape)`` hold where each row has its coefficients.

    Args:
        maps: one for each image; 0 outside.
        rows: R of them.
        shared: ``maps`` is ``(1, *shape)``, the same for every image.
    """
    owner = torch.zeros_like(rows.owner) if shared else rows.owner
    if rows.corner is None:
        return maps if shared else maps.index_select(0, owner)
    (h, w), (height, width) = rows.values.shape[2:], maps.shape[2:]
    y, x = rows.corner.unbind(1)
    (top, bottom), (left, right) = (
        (max(0, -int(c.min())), max(0, int(c.max()) + window - size))
        for c, window, size in ((y, h, height), (x, w, width))
    )
    padded = functional.pad(maps, (left, right, top, bottom))
    return padded.unfold(2, h, 1).unfold(3, w, 1)[owner, :, y + top, x + left]


def whole(rows: Rows, shape: Sequence[int]) -> Rows:
    """Return rows over the whole output of ``shape``."""
    if rows.corner is None:
        return rows
    r, channels, h, w = rows.values.shape
    height, width = shape[1:]
    y = rows.corner[:, 0, None] + torch.arange(h, device=rows.corner.device)
    x = rows.corner[:, 1, None] + torch.arange(w, device=rows.corner.device)
    place = y.clamp(0, height - 1)[:, :, None] * width + x.clamp(0, width - 1)[:, None, :]
    values = rows.values.new_zeros(r, channels, height * width)
    values = values.scatter_add(
        2, place.view(r, 1, -1).expand(-1, channels, -1), rows.values.flatten(2)
    )
    return Rows(values.view(r, *shape), rows.owner)


def settled(rows: Rows, shape: Sequence[int]) -> Rows:
    """Return the same rows, 0 outside of the map; whole where a window is no smaller."""
    if rows.corner is None:
        return rows
    (h, w), (height, width) = rows.values.shape[2:], shape[1:]
    inside = []
    for axis, window, size in ((0, h, height), (1, w, width)):
        place = rows.corner[:, axis, None] + torch.arange(window, device=rows.corner.device)
        inside.append((place >= 0) & (place < size))
    values = rows.values
    if not (bool(inside[0].all()) and bool(inside[1].all())):
        values = values * (inside[0][:, None, :, None] & inside[1][:, None, None, :])
    cut = Rows(values, rows.owner, rows.corner)
    return whole(cut, shape) if h * w >= height * width else cut


def added(a: Rows, b: Rows, shape: Sequence[int]) -> Rows:
    """Return the sums of rows of the same output."""
    if a.corner is not None and b.corner is not None:
        apart = b.corner - a.corner
        if bool((apart == apart[:1]).all()):
            return _united(a, b, apart[0].tolist())
    a, b = whole(a, shape), whole(b, shape)
    return Rows(a.values + b.values, a.owner)


def _united(a: Rows, b: Rows, apart: Sequence[int]) -> Rows:
    """Return the sum over the smallest window that holds both; b's begins ``apart`` from a's."""
    assert a.corner is not None
    first = [min(0, d) for d in apart]
    ends = [max(a.values.shape[2 + k], apart[k] + b.values.shape[2 + k]) for k in (0, 1)]
    parts = []
    for rows, begin in ((a, (0, 0)), (b, apart)):
        before = [begin[k] - first[k] for k in (0, 1)]
        after = [ends[k] - begin[k] - rows.values.shape[2 + k] for k in (0, 1)]
        parts.append(functional.pad(rows.values, (before[1], after[1], before[0], after[0])))
    corner = a.corner + torch.tensor(first, device=a.corner.device)
    return Rows(parts[0] + parts[1], a.owner, corner)
