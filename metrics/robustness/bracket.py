"""Images along one direction each, and the bracket that closes on where one breaks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metrics.answers import logits_of, margin, silent
from metrics.attacks.geometry import column, moved

FIRST_RUNG = 1 / 16  # of the limit
BEYOND = 1.1  # the next rung is so much further than where the margin is expected to vanish
KAPPA = 0.1  # κ1 of ITP, times the first bracket; κ2 is 2 and n0 is 1


class Ray:
    """Images along one direction each."""

    def __init__(
        self, model: nn.Module, x: Tensor, labels: Tensor, direction: Tensor, *, clip: bool
    ) -> None:
        self.model, self.x, self.labels, self.direction = model, x, labels, direction
        self.clip = clip

    def images(self, rows: Tensor, sizes: Tensor) -> Tensor:
        """Return the images of ``rows`` moved by ``sizes`` ``(len(rows),)``."""
        x, delta = self.x[rows], column(sizes) * self.direction[rows].double()
        return moved(x, delta) if self.clip else (x.double() + delta).to(x.dtype)

    def margins(self, rows: Tensor, sizes: Tensor) -> Tensor:
        """Return ``(len(rows),)`` float64: logit of the label minus the largest other.

        Below 0 is broken; logits that are not finite, or a tie lost, give minus infinity.
        """
        logits, labels = logits_of(self.model, self.images(rows, sizes)), self.labels[rows]
        lead = margin(logits, labels)
        lost = (logits.argmax(dim=1) != labels) & (lead >= 0) | silent(logits)
        return lead.double().masked_fill(lost, -torch.inf)


class Bracket:
    """Between which sizes each image of a ray breaks, and the margins there.

    Attributes:
        low: ``(N,)`` float64, the last size seen that does not break it; 0 is the image itself.
        high: ``(N,)`` float64, a size above it that does; infinity where none was seen.
        below, above: margins at both; NaN where there is none.
    """

    def __init__(self, ray: Ray, margins: Tensor) -> None:
        """Begin with the ``margins`` at the images themselves."""
        self.ray = ray
        self.low = torch.zeros(len(ray.x), dtype=torch.float64, device=ray.x.device)
        self.high = torch.full_like(self.low, torch.inf)
        self.below, self.above = margins.clone(), torch.full_like(self.low, torch.nan)

    def look(self, rows: Tensor, sizes: Tensor) -> None:
        """Look at ``rows`` at ``sizes``, which lie inside of their brackets."""
        margins = self.ray.margins(rows, sizes)
        broke = margins < 0
        self.high[rows[broke]], self.above[rows[broke]] = sizes[broke], margins[broke]
        self.low[rows[~broke]], self.below[rows[~broke]] = sizes[~broke], margins[~broke]

    def narrow(self, tolerance: Tensor) -> None:
        """Close what has a high end by ITP to a width of ``tolerance``, ``(N,)`` or one for all."""
        tolerance = tolerance.expand_as(self.low)
        first = self.high - self.low
        most = (first / tolerance).log2().ceil().clamp_min(0)
        step = 0
        while len(rows := self._open(tolerance)):
            room = tolerance[rows] * 2.0 ** (most[rows] - step)
            low, high, below, above = (
                v[rows] for v in (self.low, self.high, self.below, self.above)
            )
            self.look(rows, _itp(low, high, below, above, first[rows], room))
            step += 1

    def images(self) -> Tensor:
        """Return the images at the high ends; those without one as they are."""
        found = self.high.isfinite().nonzero().squeeze(1)
        images = self.ray.x.clone()
        images[found] = self.ray.images(found, self.high[found])
        return images

    def _open(self, tolerance: Tensor) -> Tensor:
        wide = self.high - self.low > tolerance
        return (self.high.isfinite() & wide).nonzero().squeeze(1)


def close(ray: Ray, margins: Tensor, limit: float, tolerance: float) -> tuple[Tensor, Tensor]:
    """Return ``(N,)`` sizes (infinity where none breaks) and the images there.

    ``margins`` are those at the images themselves.
    """
    bracket = Bracket(ray, margins)
    low, below = bracket.low, bracket.below
    size = torch.full_like(low, limit * FIRST_RUNG)
    while len(rows := (bracket.high.isinf() & (low < limit)).nonzero().squeeze(1)):
        before, margin = low[rows], below[rows]
        bracket.look(rows, size[rows])
        slope = (margin - below[rows]) / (low[rows] - before)  # of those that still stand
        expected = low[rows] + below[rows] / slope.clamp_min(1e-30)
        rung = torch.maximum(torch.minimum(BEYOND * expected, 4 * low[rows]), 1.5 * low[rows])
        size[rows] = rung.clamp_max(limit)
    bracket.narrow(torch.as_tensor(tolerance, dtype=low.dtype, device=low.device))
    return bracket.high, bracket.images()


def _itp(
    low: Tensor, high: Tensor, below: Tensor, above: Tensor, first: Tensor, room: Tensor
) -> Tensor:
    """Return the next sizes of ITP: interpolate, truncate towards the middle, project.

    Args:
        low, high: the bracket; below, above: the margins there (> 0 and < 0, or not known).
        first: width of the first bracket.
        room: half the width that plain bisection would still allow after this step.
    """
    middle, half = (low + high) / 2, (high - low) / 2
    line = low + (high - low) * below / (below - above)
    line = torch.where(line.isfinite(), line, middle)
    towards = (middle - line).sign()
    shift = KAPPA * (high - low) ** 2 / first
    cut = torch.where(shift <= (middle - line).abs(), line + towards * shift, middle)
    radius = (room - half).clamp_min(0)
    return torch.where((cut - middle).abs() <= radius, cut, middle - towards * radius)
