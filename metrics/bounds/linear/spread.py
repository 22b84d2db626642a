"""How far the first layer goes within an L2 ball: row norms, without the rows.

As long as each pixel lies in one unit at most, times a scale, the squares of a unit's weights sum
up to the square of its gain: one convolution of squared weights gives those of all units. A pixel
at the end of [0, 1] can move one way only, and counts for one sign of its weight only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metrics.bounds.linear.ball import Ball
from metrics.bounds.linear.interval import SLACK
from metrics.bounds.operations import Convolution, Dense, Operation, Rearrangement, Scaling


@dataclass(frozen=True, eq=False)
class Spread:
    """How far the units of a step go for each unit of length that the images go.

    Attributes:
        centre: the step's output for the images, ``(N, *shape)``.
        down, up: squares of the gain downwards and upwards, ``(N, *shape)``.
        apart: whether no two units read the same pixel, and none reads two.
    """

    centre: Tensor
    down: Tensor
    up: Tensor
    apart: bool = True

    @classmethod
    def of(cls, ball: Ball) -> Spread:
        """Return that of the pixels."""
        x = ball.images
        return cls(x, (ball.lower < x).to(x), (ball.upper > x).to(x))

    def through(self, operation: Operation) -> Spread | None:
        """Return that of an operation's output; None where the squares do not sum up."""
        if isinstance(operation, Convolution | Dense) and self.apart:
            same, turned = (_squared(operation, sign) for sign in (1, -1))
            return Spread(
                operation.forward(self.centre),
                same.forward(self.down) + turned.forward(self.up),
                same.forward(self.up) + turned.forward(self.down),
                False,
            )
        if isinstance(operation, Scaling):
            scale = operation.scale.to(self.up)
            ends = scale.square() * self.down, scale.square() * self.up
            return replace(
                self,
                centre=operation.forward(self.centre),
                down=torch.where(scale > 0, *ends),
                up=torch.where(scale > 0, *ends[::-1]),
            )
        if isinstance(operation, Rearrangement):
            nothing = operation.forward(torch.zeros_like(self.up))
            return Spread(
                operation.forward(self.centre),
                operation.forward(self.down) - nothing,
                operation.forward(self.up) - nothing,
                self.apart and operation.copies == 1,
            )
        return None

    def ends(self, epsilon: Tensor, magnitude: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the step lies between, widened for the rounding."""
        axes = (-1, *(1 for _ in self.up.shape[1:]))
        room, slack = epsilon.view(axes) * (1 + SLACK), SLACK * magnitude.view(axes)
        return (
            self.centre - room * self.down.clamp_min(0).sqrt() - slack,
            self.centre + room * self.up.clamp_min(0).sqrt() + slack,
        )


def _squared(operation: Convolution | Dense, sign: int) -> Convolution | Dense:
    """Return it with the squares of the weights of one sign, and without bias."""
    weight = (sign * operation.weight).clamp_min(0).square()
    return replace(operation, weight=weight, bias=None)
