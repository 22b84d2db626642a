"""Projected gradient descent on the negative loss. Source: Madry et al. 2018 (arXiv 1706.06083)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from metrics.attacks.ascent import GradientAscent
from metrics.attacks.geometry import Randomness, check_length, in_ball
from metrics.attacks.rows import Rows


@dataclass(frozen=True, kw_only=True)
class PGD(GradientAscent):
    """Projected gradient ascent on the cross entropy; a call returns the last iterate.

    It climbs :func:`metrics.answers.margin_loss`, whose gradient has the same direction.

    Each step goes up the loss, then into the ball around the image, then into the box [0, 1].

    Args:
        epsilon, steps, norm, restarts, target: as in :class:`GradientAscent`.
        step_size: length of one step, in the same norm; None is epsilon / 4.
        random_start: begin uniformly in the ball instead of at the image.

    Raises:
        ValueError: as there, or step_size outside (0, 1], in L2 not above 0 or not finite.
    """

    step_size: float | None = None
    random_start: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step_size is not None:
            check_length("step_size", self.step_size, self.norm, zero=False)

    @property
    def step_length(self) -> float:
        """How far a step goes, in the norm."""
        return self.epsilon / 4 if self.step_size is None else self.step_size

    def with_epsilon(self, epsilon: float) -> PGD:
        if self.step_size is None or not self.epsilon:
            return replace(self, epsilon=epsilon)
        step = self.step_size * epsilon / self.epsilon
        step = min(step, 1.0) if self.norm == "linf" else step
        return replace(self, epsilon=epsilon, step_size=step or None)

    def begin(self, rows: Rows, random: Randomness) -> None:
        self.surround(rows)
        if self.random_start:
            start = in_ball(tuple(rows.x.shape[1:]), self.norm, random) * self.epsilon
            rows.candidate = self.inside(rows, start.add_(rows.x))

    def advance(self, rows: Rows, step: int, random: Randomness) -> None:
        here = rows.candidate
        rows.candidate = self.inside(rows, here + self.step_length * self.direction(rows.gradient))
