"""Linear functions of a step's output, many at a time, each of one image of a batch.

A row that starts at a unit of a convolution looks at a window of each earlier map. Only the window
is kept: that is what makes bounds on every unit of a convolution affordable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, eq=False)
class Rows:
    """R linear functions of a step's output, over V views of it.

    Attributes:
        values: their coefficients, ``(R, *shape)``, or ``(R, C, h, w)`` of a window of maps; those
            that lie outside of the map are 0.
        view: ``(R,)``, the view that each belongs to; many channels share one.
        owner: ``(V,)``, the image of the batch that each view is of.
        corner: ``(V, 2)``, where each view begins, possibly outside; None is the whole.
    """

    values: Tensor
    view: Tensor
    owner: Tensor
    corner: Tensor | None = None

    @property
    def image(self) -> Tensor:
        """The image of the batch that each row belongs to ``(R,)``."""
        return self.owner[self.view]

    def over(self, values: Tensor, corner: Tensor | None = None) -> Rows:
        """Return rows of the same images with other coefficients and corners."""
        return replace(self, values=values, corner=corner)


def whole_rows(values: Tensor, image: Tensor) -> Rows:
    """Return the rows ``values`` ``(R, *shape)`` over all of a step, of images ``(R,)``."""
    owner, view = image.unique(return_inverse=True)
    return Rows(values, view, owner)


def unit_rows(
    shape: Sequence[int], image: Tensor, units: Tensor, sign: float, *, window: bool
) -> Rows:
    """Return rows that are each one unit of a step, times ``sign``.

    Args:
        shape: of the step's output.
        image, units: ``(R,)``; units are counted through the output.
        sign: 1 or -1.
        window: let them be windows of 1 x 1; only for maps ``(C, H, W)``.
    """
    count = torch.arange(len(units), device=units.device)
    if not window:
        size = torch.Size(shape).numel()
        values = torch.zeros(len(units), size, dtype=torch.float64, device=units.device)
        values[count, units] = sign
        return whole_rows(values.view(-1, *shape), image)
    channels, area = shape[0], shape[1] * shape[2]
    values = torch.zeros(len(units), channels, dtype=torch.float64, device=units.device)
    values[count, units // area] = sign
    places, view = (image * area + units % area).unique(return_inverse=True)
    at = places % area
    corner = torch.stack([at // shape[2], at % shape[2]], 1)
    return Rows(values[:, :, None, None], view, places // area, corner)


def gathered(maps: Tensor, rows: Rows) -> Tensor:
    """Return what ``maps`` hold where each row has its coefficients.

    Args:
        maps: ``(N, *shape)``, one for each image, or ``(1, *shape)`` for all; 0 outside.
        rows: R of them.
    """
    if rows.corner is not None:
        return viewed(maps, rows).index_select(0, rows.view)
    shared = len(maps) == 1
    return maps.expand_as(rows.values) if shared else maps.index_select(0, rows.image)


def viewed(maps: Tensor, rows: Rows) -> Tensor:
    """Return what ``maps`` hold in each view's window ``(V, C, h, w)``, as :func:`gathered`."""
    assert rows.corner is not None
    owner = torch.zeros_like(rows.owner) if len(maps) == 1 else rows.owner
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
    index = place.flatten(1)[rows.view, None].expand(-1, channels, -1)
    values = rows.values.new_zeros(r, channels, height * width)
    values.scatter_add_(2, index, rows.values.flatten(2))
    return whole_rows(values.view(r, *shape), rows.image)


def settled(rows: Rows, shape: Sequence[int]) -> Rows:
    """Return the same rows, 0 outside of the map; whole where a window is no smaller."""
    if rows.corner is None:
        return rows
    (h, w), (height, width) = rows.values.shape[2:], shape[1:]
    inside = []
    for axis, window, size in ((0, h, height), (1, w, width)):
        place = rows.corner[:, axis, None] + torch.arange(window, device=rows.corner.device)
        inside.append((place >= 0) & (place < size))
    if not (bool(inside[0].all()) and bool(inside[1].all())):
        within = inside[0][:, None, :, None] & inside[1][:, None, None, :]
        rows = replace(rows, values=rows.values * within.to(rows.values)[rows.view])
    return whole(rows, shape) if h * w >= height * width else rows


def added(a: Rows, b: Rows, shape: Sequence[int]) -> Rows:
    """Return the sums of rows of the same images, over the same output."""
    if a.corner is not None and b.corner is not None:
        apart = b.corner - a.corner
        if bool((apart == apart[:1]).all()):
            return _united(a, b, apart[0].tolist())
    a, b = whole(a, shape), whole(b, shape)
    return replace(a, values=a.values + b.values)


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
    return a.over(parts[0] + parts[1], a.corner + torch.tensor(first, device=a.corner.device))
