"""Stability as scores of a trial: adversarial against random susceptibility."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor, nn

from metrics.metric import Metric
from metrics.robustness.smallest import check_line
from metrics.stability.draws import UnitDraws
from metrics.stability.measure import (
    DELTAS,
    DRAWS,
    LENGTH,
    SCALINGS,
    Share,
    Stability,
    check_deltas,
    measure,
)

OF_ATTACK = (
    "_adversarial",
    "_adversarial_low",
    "_adversarial_high",
    *(f"_{norm}_{part}" for norm in ("l1", "l2", "linf") for part in ("mean", "sd")),
    "_zero_gradients",
)


@dataclass(frozen=True, kw_only=True)
class StabilityShares(Metric):
    """Share of right images with a small attack, and of those that noise of its size breaks.

    ``_adversarial`` is the share of right images that some length of their gradient breaks;
    ``_random_D`` the share of those that one of the draws of D times that length breaks; each with
    its 95 % Wilson interval. ``_l1``, ``_l2`` and ``_linf`` are the sizes of the attacks, mean and
    standard deviation. A share of no images is NaN. ``_zero_gradients`` is the share of right
    images whose gradient is zero, which no attack on a line can break.

    Args:
        deltas, draws, region, seed, mode, length, scalings, clip: as in
            :func:`metrics.stability.measure`; the draws are those of ``seed`` in every trial.
    """

    default_label: ClassVar[str] = "stability"
    limit: int | None = 50
    deltas: tuple[float, ...] = DELTAS
    draws: int = DRAWS
    region: str = "ball"
    seed: int = 0
    mode: str = "margin"
    length: float = LENGTH
    scalings: int = SCALINGS
    clip: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "deltas", check_deltas(self.deltas))
        UnitDraws.of((1, 1, 1), self.draws, region=self.region, seed=self.seed)
        check_line(mode=self.mode, length=self.length, scalings=self.scalings)

    @property
    def score_names(self) -> tuple[str, ...]:
        shares = [
            f"_random_{delta:g}{end}" for delta in self.deltas for end in ("", "_low", "_high")
        ]
        return tuple(f"{self.prefix}{suffix}" for suffix in (*OF_ATTACK, *shares))

    def found(self, model: nn.Module, images: Tensor, labels: Tensor) -> Stability:
        """Return what :func:`metrics.stability.measure` finds under these settings."""
        own = {field.name for field in fields(Metric)}
        settings = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in own}
        return measure(model, images[: self.limit], labels[: self.limit], **settings)

    def measure(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> tuple[float, ...]:
        found = self.found(model, images, labels)
        return (
            found.adversarial.value,
            *found.adversarial.interval,
            *(part for pair in found.norms() for part in pair),
            Share(found.zero_gradients, found.adversarial.of).value,
            *(v for share in found.random for v in (share.value, *share.interval)),
        )
