"""FAB: to the nearest decision boundary, past it, and back towards the image.

Source: Croce and Hein 2020, *Minimally distorted adversarial examples with a fast adaptive boundary
attack* (arXiv 1907.02044), algorithm 1, in the targeted version of Croce and Hein 2020 (arXiv
2003.01690), appendix C: the boundary of one other class at a time, so that a step takes one
gradient and not one for each class.

An iterate may lie far outside the ball of epsilon, which the attack does not look at on its way: an
image is broken by a misclassified iterate within it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metrics.answers import misclassified
from metrics.attacks.geometry import (
    Randomness,
    check_norm,
    column,
    length_of,
    moved,
    project,
    within,
)
from metrics.attacks.iterative import Iterative, check_counts
from metrics.attacks.linear import smallest_step
from metrics.attacks.rows import Rows
from metrics.precision import widened

LARGEST_SHARE = 0.1  # α max: of the step that is taken from the image itself
OVERSHOOT = 1.05  # η: how far past the linearised boundary
BACK = 0.9  # β: of the way from the image, where a misclassified iterate goes back to


@dataclass(frozen=True, kw_only=True)
class FAB(Iterative):
    """Fast adaptive boundary attack; a call returns the nearest misclassified iterate.

    Where that lies outside the ball, it is cut to the ball; where there is none, the image itself
    comes back. It begins at the image and draws nothing at random.

    Args:
        epsilon: radius of the ball.
        norm: ``linf`` or ``l2``.
        steps: towards each class; a step costs two passes forwards and one back.
        targets: how many classes, those with the largest clean logits; at most all but the label's.

    Raises:
        ValueError: as :class:`Attack`; steps or targets below 1, an unknown norm.
    """

    returns_best: ClassVar[bool] = True
    norm: str = "linf"
    steps: int = 100
    targets: int = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        check_norm(self.norm)
        check_counts(steps=self.steps, targets=self.targets)

    @property
    def distance(self) -> str:
        return self.norm

    @property
    def towards(self) -> str | None:
        return "others"

    @property
    def rivals(self) -> int:
        return self.targets

    @property
    def starts(self) -> int:
        return self.targets

    @property
    def looks(self) -> int:
        return 2 * self.steps - 1

    def wants_gradient(self, step: int) -> bool:
        return step % 2 == 0

    def losses_of(self, rows: Rows, logits: Tensor) -> Tensor:
        """Return the lead of the class that the attack goes towards; 0 is the boundary."""
        ends = torch.stack([rows.aim, rows.labels], dim=1)
        there, here = logits.gather(1, ends).unbind(dim=1)
        return there - here

    def begin(self, rows: Rows, random: Randomness) -> None:
        """Begin at the image."""

    def advance(self, rows: Rows, step: int, random: Randomness) -> None:
        x, here = widened(rows.x), widened(rows.candidate)
        if step % 2:  # after a look at where the step has led
            wrong = column(misclassified(rows.logits, rows.labels))
            there = torch.where(wrong, x + BACK * (here - x), here)
        else:
            there = self._step(x, here, rows.losses.to(x.dtype), rows.gradient.to(x.dtype))
        rows.candidate = there.clamp(0, 1).to(rows.x.dtype)

    def _step(self, x: Tensor, here: Tensor, lead: Tensor, gradient: Tensor) -> Tensor:
        """Return a point past the plane where the linearised lead is 0 (equations 7 to 9)."""
        lead = lead.nan_to_num(0, 0, 0)
        from_here = -lead
        from_image = from_here + (gradient * (here - x)).flatten(1).sum(dim=1)
        gain = torch.cat([from_here, from_image])
        slope = torch.cat([gradient, gradient]) * column(gain.sign())  # from either side of it
        steps = smallest_step(torch.cat([here, x]), slope, gain.abs(), self.norm)
        far = length_of(steps, self.norm).clamp_min(1e-8)
        ahead, anew = steps.to(x.dtype).chunk(2)
        near, wide = far.chunk(2)
        share = column((near / (near + wide)).clamp_max(LARGEST_SHARE)).to(x.dtype)
        return (1 - share) * (here + OVERSHOOT * ahead) + share * (x + OVERSHOOT * anew)

    def breaks(self, rows: Rows) -> Tensor:
        return misclassified(rows.logits, rows.labels) & (self._far(rows) <= self.epsilon)

    def strength(self, rows: Rows, fooled: Tensor) -> Tensor:
        near = 1 / self._far(rows).clamp_min(1e-30)
        return torch.where(fooled, near, -1.0).to(rows.losses.dtype)

    def _far(self, rows: Rows) -> Tensor:
        return length_of(rows.candidate.double() - rows.x.double(), self.norm)

    def cut(self, x: Tensor, images: Tensor) -> Tensor:
        if self.norm == "linf":
            return images.clamp(*within(x, self.epsilon))
        return moved(x, project(widened(images) - widened(x), self.norm, self.epsilon))
