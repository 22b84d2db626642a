"""PGD on the divergence between the predictions of an image and of its neighbour.

Source: Zhang et al. 2019 (arXiv 1901.08573), algorithm 1, whose training takes its adversarial
images from here. Labels play no part: an image that is wrong moves too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metrics.answers import answer, gradient_of, logits_of
from metrics.attacks.base import Attack, Found
from metrics.attacks.geometry import Randomness
from metrics.attacks.losses import divergence
from metrics.attacks.pgd import PGD
from metrics.attacks.rows import Rows

START = 0.001  # standard deviation of the start, in pixels: at the image the gradient is zero


@dataclass(frozen=True, kw_only=True)
class DivergencePGD(PGD):
    """Projected gradient ascent on KL(p(x) || p(x')); a call returns the last iterate.

    It begins at x + 0.001 N(0, 1), as the authors' code does, put into the ball and the box. Its
    divergence is computed in float64: where a label leads by 10, float32 rounds the gradient away.

    Args:
        epsilon, steps, step_size, norm: as in :class:`PGD`.
        random_start: expected to stay true.

    Raises:
        ValueError: as there; restarts, a target, or no random start.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.restarts != 1 or self.target is not None or not self.random_start:
            raise ValueError(
                "expected one random start and no target of an ascent on the divergence, got "
                f"restarts {self.restarts}, target {self.target!r}, "
                f"random_start {self.random_start}"
            )

    def begin(self, rows: Rows, random: Randomness) -> None:
        self.surround(rows)
        start = START * random.normal(*rows.x.shape[1:])
        rows.candidate = self.inside(rows, start.add_(rows.x))

    def perturb_rows(
        self, model: nn.Module, x: Tensor, labels: Tensor | None, random: Randomness
    ) -> Tensor:
        rows = Rows(x=x, candidate=x)
        clean = logits_of(model, x).double()
        self.begin(rows, random)
        for step in range(self.steps):
            with torch.enable_grad():
                candidate = rows.candidate.detach().requires_grad_()
                apart = divergence(clean, answer(model, candidate).double()).sum()
                rows.gradient = gradient_of(apart, candidate).nan_to_num(0, 0, 0)
            self.advance(rows, step, random)
        return rows.candidate

    def search(
        self,
        model: nn.Module,
        x: Tensor,
        labels: Tensor,
        random: Randomness,
        *,
        early_exit: bool = True,
    ) -> Found:
        """Look at the image that :meth:`perturb` returns alone: the way there fools no label."""
        return Attack.search(self, model, x, labels, random, early_exit=early_exit)
