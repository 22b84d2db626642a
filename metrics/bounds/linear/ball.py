"""The images that a bound speaks of, and the least value of a linear function over them.

They are those of the box [0, 1] within epsilon of an image. In L infinity that is a box. In L2 it
is a ball cut by the box, over which the least value is bounded by Lagrange duality.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from metrics.bounds.linear.interval import SLACK
from metrics.bounds.linear.rows import Rows, gathered

ITERATIONS = 4  # for the multiplier of L2; any multiplier gives a valid bound


@dataclass(frozen=True, eq=False)
class Ball:
    """The images within ``epsilon`` of each of ``images``, and within [0, 1].

    Attributes:
        images: ``(N, C, H, W)`` in [0, 1], float64.
        norm: ``linf`` or ``l2``.
        epsilon: ``(N,)``, nonnegative and finite, float64.
    """

    images: Tensor
    norm: str
    epsilon: Tensor

    @cached_property
    def lower(self) -> Tensor:
        """The least value of each pixel ``(N, C, H, W)``."""
        return (self.images - self._room).clamp_min(0)

    @cached_property
    def upper(self) -> Tensor:
        """The largest value of each pixel ``(N, C, H, W)``."""
        return (self.images + self._room).clamp_max(1)

    @property
    def _room(self) -> Tensor:
        return self.epsilon.view(-1, *(1 for _ in self.images.shape[1:]))

    def least(self, rows: Rows) -> Tensor:
        """Return a lower bound ``(R,)`` of each row, a linear function of the pixels.

        Both are exact, but for rounding, where the ball does not leave [0, 1] (dual norms: L1 for
        L infinity and L2 for L2); for L infinity always.
        """
        a = rows.values
        lower, upper = gathered(self.lower, rows), gathered(self.upper, rows)
        box = (a.clamp_min(0) * lower + a.clamp_max(0) * upper).flatten(1).sum(1)
        if self.norm == "linf":
            return box
        x = gathered(self.images, rows)
        return torch.maximum(box, self._dual(rows, x, lower - x, upper - x))

    def _dual(self, rows: Rows, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Return the dual bound: the least of a.d + m (|d|^2 - epsilon^2) / 2 over a box of d.

        It holds for every multiplier m > 0, and is the least value itself for the m whose least d
        has length epsilon. From the m of the pixels that can move at all, each iteration fixes the
        pixels that are at the end of their room and solves for the others.
        """
        a, epsilon = rows.values.flatten(1), self.epsilon[rows.image]
        x, low, high = x.flatten(1), low.flatten(1), high.flatten(1)
        free = torch.where(a > 0, low < 0, high > 0)
        tiny = torch.finfo(torch.float64).tiny
        multiplier = (a * free).norm(dim=1) / epsilon.clamp_min(tiny)
        found = torch.full_like(epsilon, -torch.inf)
        for _ in range(ITERATIONS):
            m = multiplier.clamp_min(tiny).clamp_max(1e300)[:, None]
            wish = -a / m
            d = wish.clamp(low, high)
            squares = d.square().sum(1), epsilon.square()
            value = (a * d).sum(1) + m[:, 0] / 2 * (squares[0] - squares[1])
            value = value - SLACK * m[:, 0] * (squares[0] + squares[1])
            found = torch.maximum(found, value.nan_to_num(-torch.inf, -torch.inf, -torch.inf))
            free = (wish > low) & (wish < high)
            left = epsilon.square() - (d * ~free).square().sum(1)
            multiplier = (a * free).norm(dim=1) / left.clamp_min(tiny).sqrt()
        return (a * x).sum(1) + torch.where(epsilon > 0, found, 0)
