"""Attacks of one step of length epsilon: PGD with one step and no random start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from metrics.answers import answer, gradient_of, temperatures
from metrics.attacks.base import Attack, Found
from metrics.attacks.geometry import Randomness
from metrics.attacks.pgd import PGD
from metrics.attacks.rows import Rows


@dataclass(frozen=True, kw_only=True)
class OneStep(Attack):
    """PGD with one step of length epsilon and no random start.

    Single-step training with true labels leaks them into the images (Kurakin et al. 2017).
    """

    leaks_labels: ClassVar[bool] = True
    draws_by_image: ClassVar[bool] = True

    def pgd(self) -> PGD:
        """Return the PGD that this is."""
        return PGD(
            epsilon=self.epsilon,
            step_size=self.epsilon or None,
            steps=1,
            norm=self.distance,
            random_start=False,
            target=self.towards,
        )

    def gradient(self, model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
        """Return the gradient that the step goes up, which is the same at every epsilon.

        Entries that are not finite are so here.
        """
        x = x.detach().requires_grad_()
        logits = answer(model, x)
        aim = logits.argmin(dim=1) if self.towards == "least-likely" else labels
        return gradient_of(self.pgd().losses(logits / temperatures(logits), aim).sum(), x)

    def step(self, x: Tensor, gradient: Tensor) -> Tensor:
        """Return ``x`` after the step up a gradient that was taken there."""
        pgd, rows = self.pgd(), Rows(x=x)
        pgd.surround(rows)
        direction = pgd.direction(gradient.nan_to_num(0, 0, 0))
        return pgd.inside(rows, x + pgd.step_length * direction)

    def perturb(
        self,
        model: nn.Module,
        x: Tensor,
        labels: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        return self.pgd().perturb(model, x, labels, generator)

    def perturb_rows(
        self, model: nn.Module, x: Tensor, labels: Tensor | None, random: Randomness
    ) -> Tensor:
        return self.pgd().perturb_rows(model, x, labels, random)

    def search(
        self,
        model: nn.Module,
        x: Tensor,
        labels: Tensor,
        random: Randomness,
        *,
        early_exit: bool = True,
    ) -> Found:
        return self.pgd().search(model, x, labels, random, early_exit=early_exit)
