"""Every metric by its name, and those that do not attack.

The base class is in :mod:`metrics.metric`, those that attack in :mod:`metrics.robustness.scores`,
Ψ in :mod:`metrics.susceptibility.scores`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from metrics import cost
from metrics.metric import Metric
from metrics.robustness.accuracy import correct, standard_error
from metrics.robustness.scores import (
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
from metrics.susceptibility.scores import DriftRate, PsiEpoch1, PsiInit, PsiLimit, PsiRatio

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
    "psi-init": PsiInit,
    "psi-epoch1": PsiEpoch1,
    "psi-limit": PsiLimit,
    "drift": DriftRate,
    "cost": Cost,
}
