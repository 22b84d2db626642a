"""Projected gradient descent on the negative loss. Source: Madry et al. 2018 (arXiv 1706.06083)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from metrics.attacks.ascent import GradientAscent
from metrics.attacks.geometry import Randomness, in_ball, project, unit
from metrics.attacks.iterative import Rows


@dataclass(frozen=True, kw_only=True)
class PGD(GradientAscent):
    """Projected gradient ascent on the cross entropy; a call returns the last iterate.

    Each step goes up the loss, then into the ball around the image, then into the box [0, 1].

    Args:
        epsilon, steps, norm, restarts, target: as in :class:`GradientAscent`.
        step_size: length of one step, in the same norm; None is epsilon / 4.
        random_start: begin uniformly in the ball instead of at the image.

    Raises:
        ValueError: as there, or step_size outside (0, 1].
    """

    step_size: float | None = None
    random_start: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step_size is not None and not 0 < self.step_size <= 1:
            raise ValueError(
                "step_size: expected a pixel distance in (0, 1], such as 2/255, "
                f"got {self.step_size!r}"
            )

    @property
    def step_length(self) -> float:
        """How far a step goes, in the norm."""
        return self.epsilon / 4 if self.step_size is None else self.step_size

    def with_epsilon(self, epsilon: float) -> PGD:
        if self.step_size is None or not self.epsilon:
            return replace(self, epsilon=epsilon)
        step = min(self.step_size * epsilon / self.epsilon, 1.0)
        return replace(self, epsilon=epsilon, step_size=step or None)

    def begin(self, rows: Rows, random: Randomness) -> None:
        if self.random_start:
            start = in_ball(tuple(rows.x.shape[1:]), self.norm, random) * self.epsilon
            rows.candidate = (rows.x + start).clamp_(0, 1)

    def advance(self, rows: Rows, step: int, random: Randomness) -> None:
        direction = rows.gradient.sign_() if self.norm == "linf" else unit(rows.gradient)
        moved = rows.candidate + self.step_length * direction - rows.x
        rows.candidate = (rows.x + project(moved, self.norm, self.epsilon)).clamp_(0, 1)
