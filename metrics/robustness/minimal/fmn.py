"""The third rung: fast minimum norm, from the best point so far.

Source: Pintor et al. 2021, *Fast minimum-norm adversarial attacks through adaptive norm
constraints* (arXiv 2102.12827), algorithm 1: gradient steps inside a ball whose radius shrinks by
gamma at a misclassified point and grows by gamma at another, gamma and the step annealed by cosine.
Ours knows a point that is misclassified, so that the radius never exceeds the best one. Its
steps are shares of the radius (along the sign in L infinity), and it repeats half of its last move:
with either change the median is smaller after the same passes. At a misclassified point the radius
shrinks by more than gamma where the linearised margin says so; the paper uses this estimate before
the first one is found. After 20 passes means are smaller by a fifth with it, after 50 equal.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metrics.answers import margin
from metrics.attacks.geometry import column, unit
from metrics.precision import widened
from metrics.robustness.minimal.search import Search, lost

GAMMA = (0.05, 0.001)  # first and last change of the radius
STEP = {"linf": (0.5, 0.005), "l2": (2.0, 0.02)}  # first and last step, over the radius
FASTER = 0.3  # first and largest share that the radius shrinks by, where the margin allows it
MOMENTUM = 0.5


def descend(search: Search, rows: Tensor, steps: Tensor, *, begin: float = 1.0) -> None:
    """Search inside the best radius of each of ``rows``.

    Args:
        search: images and passes.
        rows: which; each has a misclassified point.
        steps: ``(rows,)``, how many for each: a pass forwards and one back.
        begin: share of the way from the image to its best point where the search begins.
    """
    state = _State(search, rows, steps, begin)
    for step in range(int(steps.max()) if len(rows) else 0):
        state.keep(state.steps > step)
        state.advance(step)


class _State:
    """Where each image's search is."""

    def __init__(self, search: Search, rows: Tensor, steps: Tensor, begin: float) -> None:
        self.search, self.rows, self.steps = search, rows, steps
        self.x = widened(search.x[rows])
        self.radius = search.size[rows].to(self.x.dtype)
        self.delta = begin * (widened(search.images[rows]) - self.x)
        self.last = self.delta

    def keep(self, mask: Tensor) -> None:
        """Keep the images of ``mask``."""
        if not mask.all():
            for name in ("rows", "steps", "x", "radius", "delta", "last"):
                setattr(self, name, getattr(self, name)[mask])

    def advance(self, step: int) -> None:
        """Look at the candidates, then move them and their radii."""
        search, labels = self.search, self.search.labels[self.rows]
        share = ((1 + torch.cos(torch.pi * step / self.steps)) / 2).to(self.x.dtype)
        gamma, length = (
            last + (first - last) * share for first, last in (GAMMA, STEP[search.norm])
        )
        images = (self.x + self.delta).clamp(0, 1).to(search.x.dtype)
        here = widened(images) - self.x
        logits, gradient = search.climb(self.rows, images, lambda logits: -margin(logits, labels))
        best = search.size[self.rows].to(self.x.dtype)
        flat = gradient.flatten(1)
        dual = flat.abs().sum(dim=1) if search.norm == "linf" else flat.norm(dim=1)
        spare = (-margin(logits, labels) / (dual * best).clamp_min(1e-30)).nan_to_num(0, 0, 0)
        shorter = torch.maximum(torch.minimum(spare, FASTER * share), gamma)
        self.radius = torch.where(
            lost(logits, labels),
            torch.minimum(self.radius, best) * (1 - shorter),
            torch.minimum(self.radius * (1 + gamma), best),
        )
        radius = column(self.radius)
        uphill = gradient.sign() if search.norm == "linf" else unit(gradient)
        ahead = here + column(length) * radius * uphill + MOMENTUM * (here - self.last)
        self.last = here
        if search.norm == "linf":
            self.delta = torch.maximum(torch.minimum(ahead, radius), -radius)
        else:
            far = column(ahead.flatten(1).norm(dim=1).clamp_min(1e-30))
            self.delta = ahead * (radius / far).clamp_max(1)
