"""Square: random search over square patches, for a model whose gradients may mislead.

Source: Andriushchenko et al. 2020, *Square Attack* (arXiv 1912.00049), algorithms 1 and 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metrics.answers import margin
from metrics.attacks.geometry import Randomness, column, within
from metrics.attacks.iterative import Iterative, check_counts
from metrics.attacks.rows import Rows, unbeaten

# Of 10,000 queries, those after which the share of changed pixels is halved once more.
HALVE_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@dataclass(frozen=True, kw_only=True)
class Square(Iterative):
    """Square attack (L infinity, black box); a call returns the best image found.

    It begins with vertical stripes of ±epsilon; each query repaints one square per image with ±
    epsilon a channel, and keeps it if the margin of the label shrinks.

    Args:
        epsilon: radius of the ball.
        queries: forward passes for each image.
        share: of the pixels that the first squares change.

    Raises:
        ValueError: epsilon outside [0, 1], queries below 1, share outside (0, 1].
    """

    uses_gradients: ClassVar[bool] = False
    returns_best: ClassVar[bool] = True
    queries: int = 1000
    share: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(queries=self.queries)
        if not 0 < self.share <= 1:
            raise ValueError(f"share: expected a share of pixels in (0, 1], got {self.share}")

    @property
    def looks(self) -> int:
        return self.queries - 1

    def losses(self, logits: Tensor, aim: Tensor) -> Tensor:
        return -margin(logits, aim)

    def begin(self, rows: Rows, random: Randomness) -> None:
        _, channels, _, width = rows.x.shape
        rows.low, rows.high = within(rows.x, self.epsilon)
        rows.candidate = torch.where(random.uniform(channels, 1, width) < 0.5, rows.low, rows.high)
        rows.best = rows.candidate
        rows.best_loss = unbeaten(rows.x)

    def advance(self, rows: Rows, step: int, random: Randomness) -> None:
        better = rows.losses > rows.best_loss
        rows.best_loss = torch.where(better, rows.losses, rows.best_loss)
        rows.best = torch.where(column(better), rows.candidate, rows.best)
        _, channels, height, width = rows.x.shape
        side = self._side(step, height, width)
        corner = random.uniform(2)
        square = _span(corner[:, 0], side, height)[:, None, :, None]
        square = square & _span(corner[:, 1], side, width)[:, None, None, :]
        # best ± 2 epsilon, put back into the ball, is x ± epsilon
        painted = torch.where(random.uniform(channels, 1, 1) < 0.5, rows.low, rows.high)
        rows.candidate = torch.where(square, painted, rows.best)

    def _side(self, step: int, height: int, width: int) -> int:
        done = 10_000 * step / self.queries
        share = self.share / 2 ** sum(done > limit for limit in HALVE_AFTER)
        return min(max(round(math.sqrt(share * height * width)), 1), height, width)


def _span(where: Tensor, length: int, size: int) -> Tensor:
    """Return ``(N, size)`` bool: ``length`` in a row, from a share ``where`` of the room."""
    first = (where * (size - length + 1)).long()[:, None]
    at = torch.arange(size, device=where.device)
    return (at >= first) & (at < first + length)
