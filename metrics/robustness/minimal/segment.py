"""Between the rungs: forward passes alone, on the way from an image to what was found for it."""

from __future__ import annotations

import torch
from torch import Tensor

from metrics.robustness.minimal.search import Search, lost


def shrink(search: Search, rows: Tensor, looks: int, low: float = 0.0) -> None:
    """Bisect the segment from the images to their best points, between ``low`` and 1 of it.

    Args:
        search: images and passes.
        rows: which; each has a misclassified point.
        looks: how often to halve; an image that has no forward pass left is left alone.
        low: share of the way below which nothing is expected.
    """
    end = search.images[rows]
    below = torch.full((len(rows),), low, dtype=torch.float64, device=rows.device)
    above = torch.ones_like(below)
    for _ in range(looks):
        some = (search.forwards[rows] > 0).nonzero().squeeze(1)
        if len(some) == 0:
            return
        middle = (below[some] + above[some]) / 2
        at = rows[some]
        broken = lost(search.look(at, search.between(at, end[some], middle)), search.labels[at])
        above[some[broken]] = middle[broken]
        below[some[~broken]] = middle[~broken]
