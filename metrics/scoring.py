"""Every metric by its name, and those that do not attack.

The base class is in :mod:`metrics.metric`, those that attack in :mod:`metrics.attack_metrics`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from metrics import cost
from metrics.accuracy import correct, standard_error
from metrics.attack_metrics import (
    APGDAccuracy,
    CascadeAccuracy,
    FGSMAccuracy,
    MinimalFGSM,
    NoiseAccuracy,
    PGDAccuracy,
    SquareAccuracy,
    StepLLAccuracy,
    Suspicion,
)
from metrics.metric import Metric
from metrics.susceptibility import check_settings, susceptibility

__all__ = ["METRICS", "CleanAccuracy", "Cost", "Metric", "PsiRatio"]


@dataclass(frozen=True, kw_only=True)
class CleanAccuracy(Metric):
    """Share of images that are classified right."""

    default_label: ClassVar[str] = "clean"

    def measure(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> tuple[float, ...]:
        accuracy = correct(model, images, labels).double().mean().item()
        return accuracy, standard_error(accuracy, len(labels))


@dataclass(frozen=True, kw_only=True)
class PsiRatio(Metric):
    """The susceptibility ratio Ψ̂, its 95 % interval, and 1.0 where it is saturated.

    ``_cancelled`` is the share of ψ whose output change drowns in rounding.

    A model whose outputs do not move at all (every ψ is 0) has no Ψ̂: the score is NaN, and the
    trial fails, instead of winning.
    """

    default_label: ClassVar[str] = "psi"
    suffixes: ClassVar[tuple[str, ...]] = ("", "_low", "_high", "_saturated", "_cancelled")
    limit: int | None = 64
    radii: tuple[float, ...] = (1e-4, 1e-3, 1e-2)
    steps: int = 5
    step: str = "rel"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self.radii, self.steps, self.step, "eval")

    def measure(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> tuple[float, ...]:
        s = susceptibility(
            model, images, radii=self.radii, steps=self.steps, step=self.step, generator=generator
        )
        value = math.nan if s.underflows else s.value
        return value, *s.interval, float(s.saturated), s.cancelled / s.psi.numel()


@dataclass(frozen=True, kw_only=True)
class Cost(Metric):
    """Trainable parameters, and multiply-accumulates for one image."""

    default_label: ClassVar[str] = ""
    suffixes: ClassVar[tuple[str, ...]] = ("parameters", "macs")

    @property
    def score_names(self) -> tuple[str, ...]:
        return tuple(f"{self.label}_{s}" if self.label else s for s in self.suffixes)

    def measure(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> tuple[float, ...]:
        return cost.parameters(model), cost.macs(model, images[:1])


METRICS: dict[str, type[Metric]] = {
    "clean": CleanAccuracy,
    "fgsm": FGSMAccuracy,
    "step-ll": StepLLAccuracy,
    "pgd": PGDAccuracy,
    "apgd": APGDAccuracy,
    "square": SquareAccuracy,
    "noise": NoiseAccuracy,
    "cascade": CascadeAccuracy,
    "min-fgsm": MinimalFGSM,
    "suspicion": Suspicion,
    "psi": PsiRatio,
    "cost": Cost,
}
