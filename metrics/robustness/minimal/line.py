"""The first rung: one gradient at the image, and the first point along it that breaks.

What :func:`metrics.robustness.smallest.minimal_fgsm` does (in L2 along the unit gradient), in the
box, with the passes counted.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from metrics.answers import margin
from metrics.attacks.geometry import unit
from metrics.robustness.bracket import Ray, close
from metrics.robustness.minimal.search import Search, lost

LIMIT = {"linf": 100 / 255, "l2": 5.0}  # the longest of minimal_fgsm and gradient_line
FINEST = 11  # looks that close a bracket to a thousandth of the limit; 8 at most open it


def search_line(
    search: Search, rows: Tensor, gradient: Tensor, margins: Tensor, closing: int
) -> None:
    """Look along the ``gradient`` of ``rows``, whose margins at the images are known.

    Args:
        search: images and passes.
        rows: which.
        gradient: of a loss to climb, finite.
        margins: ``(rows,)`` float64.
        closing: looks spent on closing the bracket, 0 to 11.
    """
    limit = LIMIT[search.norm]
    if search.norm == "l2":
        limit = min(limit, math.sqrt(search.x[0].numel()))
    direction = gradient.sign() if search.norm == "linf" else unit(gradient)
    # The widest bracket is three quarters of the limit; ITP takes one look more than bisection.
    tolerance = limit if closing == 0 else max(limit * 0.75 * 2.0 ** (1 - closing), limit / 1000)
    close(_Counted(search, rows, direction), margins, limit, tolerance)


class _Counted(Ray):
    """A ray whose looks the search counts and keeps."""

    def __init__(self, search: Search, rows: Tensor, direction: Tensor) -> None:
        super().__init__(search.model, search.x[rows], search.labels[rows], direction, clip=True)
        self.search, self.rows = search, rows

    def margins(self, rows: Tensor, sizes: Tensor) -> Tensor:
        labels = self.labels[rows]
        logits = self.search.look(self.rows[rows], self.images(rows, sizes))
        lead = margin(logits, labels).double()
        broken = lost(logits, labels)
        lead = torch.where(broken, lead.clamp_max(-1e-30), lead.clamp_min(0))
        return lead.nan_to_num(-torch.inf)
