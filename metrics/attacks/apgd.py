"""Auto-PGD: projected gradient ascent that chooses its own step sizes.

Source: Croce and Hein 2020, *Reliable evaluation of adversarial robustness with an ensemble of
diverse parameter-free attacks*, algorithm 1 and section 4 (arXiv 2003.01690).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metrics.attacks.ascent import GradientAscent
from metrics.attacks.geometry import Randomness, column, length_of
from metrics.attacks.losses import dlr, targeted_dlr
from metrics.attacks.rows import Rows, unbeaten

LOSSES = ("ce", "dlr")
MOMENTUM = 0.75  # α: share of the new step; the rest repeats the last move
INCREASES = 0.75  # ρ: share of the steps since a checkpoint that must have raised the loss
FIRST_CHECK, LESS, SHORTEST = 0.22, 0.03, 0.06  # checkpoints, as shares of all steps


@dataclass(frozen=True, kw_only=True)
class APGD(GradientAscent):
    """Auto-PGD; a call returns, of each image, the misclassified or else the worst iterate.

    The step starts at 2 epsilon and is halved, going back to the best iterate, at a checkpoint
    where the loss rose too seldom or did not reach a new best.

    Args:
        epsilon, norm, target: as in :class:`GradientAscent`.
        steps: number of steps; the checkpoints are shares of it.
        loss: ``ce`` (climbs what the cross entropy climbs, :func:`metrics.answers.margin_loss`) or
            ``dlr`` (difference of logits ratio, invariant to the scale of the logits; needs 3
            classes, with a target 4).
        restarts: random starts.

    Raises:
        ValueError: epsilon outside [0, 1], steps or restarts below 1, an unknown name; when
            called, too few classes for ``dlr``.
    """

    returns_best: ClassVar[bool] = True
    steps: int = 100
    loss: str = "ce"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss not in LOSSES:
            raise ValueError(f"loss: expected one of {list(LOSSES)}, got {self.loss!r}")

    def losses(self, logits: Tensor, aim: Tensor) -> Tensor:
        if self.loss == "ce":
            return super().losses(logits, aim)
        return dlr(logits, aim) if self.target is None else targeted_dlr(logits, aim)

    def begin(self, rows: Rows, random: Randomness) -> None:
        self.surround(rows)
        shape = tuple(rows.x.shape[1:])
        # The published start lies on the surface of the ball.
        noise = 2 * random.uniform(*shape) - 1 if self.norm == "linf" else random.normal(*shape)
        longest = column(length_of(noise, self.norm).clamp_min(1e-30))
        rows.candidate = self.inside(rows, rows.x + self.epsilon * noise / longest)
        rows.previous = rows.candidate
        rows.best = rows.candidate
        rows.best_loss = unbeaten(rows.x)
        rows.last_loss = rows.best_loss
        rows.step_size = torch.full_like(rows.best_loss, 2 * self.epsilon)
        rows.increases = torch.zeros_like(rows.best_loss)
        rows.halved = torch.ones_like(rows.best_loss, dtype=torch.bool)
        rows.best_at_check = rows.best_loss

    def advance(self, rows: Rows, step: int, random: Randomness) -> None:
        self._take_stock(rows, step)
        here, share = rows.candidate, MOMENTUM if step > 0 else 1.0
        step_size = column(rows.step_size).to(here.dtype)
        ahead = self.inside(rows, here + step_size * self.direction(rows.gradient))
        further = here + share * (ahead - here) + (1 - share) * (here - rows.previous)
        rows.previous, rows.candidate = here, self.inside(rows, further)

    def _take_stock(self, rows: Rows, step: int) -> None:
        """Remember the best iterate; at a checkpoint, halve the step where it did not pay."""
        rows.increases = rows.increases + (rows.losses > rows.last_loss)
        rows.last_loss = rows.losses
        better = rows.losses > rows.best_loss
        rows.best_loss = torch.where(better, rows.losses, rows.best_loss)
        rows.best = torch.where(column(better), rows.candidate, rows.best)
        if step == 0:
            rows.best_gradient = rows.gradient
            rows.best_at_check, rows.increases = rows.best_loss, torch.zeros_like(rows.losses)
            return
        rows.best_gradient = torch.where(column(better), rows.gradient, rows.best_gradient)
        interval = checkpoints(self.steps).get(step)
        if interval is None:
            return
        rarely = rows.increases <= INCREASES * interval
        stuck = ~rows.halved & (rows.best_at_check >= rows.best_loss)
        rows.halved = rarely | stuck
        rows.step_size = torch.where(rows.halved, rows.step_size / 2, rows.step_size)
        rows.candidate = torch.where(column(rows.halved), rows.best, rows.candidate)
        rows.gradient = torch.where(column(rows.halved), rows.best_gradient, rows.gradient)
        rows.best_at_check, rows.increases = rows.best_loss, torch.zeros_like(rows.losses)


def checkpoints(steps: int) -> dict[int, int]:
    """Return step -> steps since the last checkpoint (Croce and Hein 2020, section 3.1)."""
    interval, shortest = max(int(FIRST_CHECK * steps), 1), max(int(SHORTEST * steps), 1)
    found, step = {}, 0
    while (step := step + interval) <= steps:
        found[step] = interval
        interval = max(interval - max(int(LESS * steps), 1), shortest)
    return found
