"""Projected gradient ascent, and the single steps that it contains.

Sources: Goodfellow et al. 2015 (FGSM), Kurakin et al. 2017 (step-l.l.), Madry et al. 2018 (PGD).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metrics.attacks.base import Attack, Found
from metrics.attacks.geometry import Draws, check_norm, in_ball, project, unit
from metrics.attacks.iterative import Iterative, Rows, check_counts, check_target


@dataclass(frozen=True, kw_only=True)
class PGD(Iterative):
    """Projected gradient ascent on the cross entropy; a call returns the last iterate.

    Each step goes up the loss, then into the ball around the image, then into the box [0, 1].

    Args:
        epsilon: radius of the ball.
        step_size: length of one step, in the same norm; None is epsilon / 4.
        steps: number of steps.
        norm: ``linf`` or ``l2``.
        random_start: begin uniformly in the ball instead of at the image.
        restarts: how often to begin; of each image the start that fooled the model is kept, else
            the one with the larger loss.
        target: None goes away from the label; ``least-likely`` and ``runner-up`` go towards that
            class of the clean logits; ``labels`` towards the labels that the call is given.

    Raises:
        ValueError: epsilon or step_size outside [0, 1], steps or restarts below 1, unknown norm
            or target.
    """

    step_size: float | None = None
    steps: int = 7
    norm: str = "linf"
    random_start: bool = True
    restarts: int = 1
    target: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_norm(self.norm)
        check_target(self.target)
        if self.step_size is not None and not 0 < self.step_size <= 1:
            raise ValueError(
                "step_size: expected a pixel distance in (0, 1], such as 2/255, "
                f"got {self.step_size!r}"
            )
        check_counts(steps=self.steps, restarts=self.restarts)

    @property
    def looks(self) -> int:
        return self.steps

    @property
    def step_length(self) -> float:
        """How far a step goes, in the norm."""
        return self.epsilon / 4 if self.step_size is None else self.step_size

    def begin(self, rows: Rows, draws: Draws) -> None:
        if self.random_start:
            start = in_ball(tuple(rows.x.shape[1:]), self.norm, draws) * self.epsilon
            rows.candidate = (rows.x + start).clamp_(0, 1)

    def advance(self, rows: Rows, step: int, draws: Draws) -> None:
        direction = rows.gradient.sign_() if self.norm == "linf" else unit(rows.gradient)
        moved = rows.candidate + self.step_length * direction - rows.x
        rows.candidate = (rows.x + project(moved, self.norm, self.epsilon)).clamp_(0, 1)


@dataclass(frozen=True, kw_only=True)
class _OneStep(Attack):
    """PGD with one step of length epsilon and no random start."""

    @abstractmethod
    def pgd(self) -> PGD:
        """Return the PGD that this is."""

    def perturb(
        self,
        model: nn.Module,
        x: Tensor,
        labels: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        return self.pgd().perturb(model, x, labels, generator)

    def search(
        self,
        model: nn.Module,
        x: Tensor,
        labels: Tensor,
        generator: torch.Generator | None,
        *,
        early_exit: bool = True,
    ) -> Found:
        return self.pgd().search(model, x, labels, generator, early_exit=early_exit)


@dataclass(frozen=True, kw_only=True)
class FGSM(_OneStep):
    """Fast gradient (sign) method: one step of length epsilon, no random start.

    Args:
        epsilon: length of the step.
        norm: ``linf`` takes the sign of the gradient, ``l2`` the unit gradient.
    """

    norm: str = "linf"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_norm(self.norm)

    def pgd(self) -> PGD:
        return PGD(
            epsilon=self.epsilon,
            step_size=self.epsilon or None,
            steps=1,
            norm=self.norm,
            random_start=False,
        )


@dataclass(frozen=True, kw_only=True)
class StepLL(_OneStep):
    """Single step towards the least likely class of the clean logits; labels play no part.

    x_adv = clip(x - epsilon sign(grad loss(x, argmin logits(x)))), Kurakin et al. 2017.
    """

    def pgd(self) -> PGD:
        return PGD(
            epsilon=self.epsilon,
            step_size=self.epsilon or None,
            steps=1,
            random_start=False,
            target="least-likely",
        )
