"""Metrics as values: what a configuration may ask a trial to be scored by.

A metric is called with (model, images, labels) and returns named floats. ``label`` names them: two
PGD metrics in one configuration are told apart by theirs (``as: pgd20`` gives ``pgd20_accuracy``).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from metrics import cost
from metrics.accuracy import correct, robust_accuracy, standard_error
from metrics.attacks import FGSM, PGD, Attack, StepLL
from metrics.susceptibility import check_settings, susceptibility


@dataclass(frozen=True, kw_only=True)
class Metric(ABC):
    """A named way to score a model.

    Args:
        label: begins the names of the scores; empty takes the metric's own.
        limit: use only the first so many images; None uses all.

    Raises:
        ValueError: limit below 1, or a setting that the metric refuses.
    """

    default_label: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = ("_accuracy", "_accuracy_stderr")
    label: str = ""
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"expected limit >= 1, got {self.limit}")

    @property
    def prefix(self) -> str:
        """The beginning of every score's name."""
        return self.label or self.default_label

    @property
    def score_names(self) -> tuple[str, ...]:
        """The names of the scores, in the order of :meth:`measure`'s values."""
        return tuple(f"{self.prefix}{suffix}" for suffix in self.suffixes)

    def __call__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, float]:
        """Return the scores.

        Args:
            model: images in [0, 1] to logits; left as found.
            images: ``(N, C, H, W)`` in [0, 1].
            labels: ``(N,)``.
            generator: decides every random draw of the metric.
        """
        values = self.measure(model, images[: self.limit], labels[: self.limit], generator)
        return dict(zip(self.score_names, map(float, values), strict=True))

    @abstractmethod
    def measure(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> tuple[float, ...]:
        """Return one value for each of ``suffixes``."""


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
class AttackAccuracy(Metric):
    """Share of images that stay right under an attack; the subclass says which.

    ``_zero_gradients`` and ``_nonfinite_gradients`` are the shares of images whose loss gradient
    says nothing: such images look robust to any gradient attack.

    Args:
        epsilon: radius of the attack, pixels in [0, 1]; a search fills in its recipe's.
    """

    suffixes: ClassVar[tuple[str, ...]] = (
        "_accuracy",
        "_accuracy_stderr",
        "_zero_gradients",
        "_nonfinite_gradients",
    )
    epsilon: float = 8 / 255

    def __post_init__(self) -> None:
        super().__post_init__()
        self.attack()

    @abstractmethod
    def attack(self) -> Attack:
        """Return the attack of these settings."""

    def measure(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> tuple[float, ...]:
        result = robust_accuracy(model, images, labels, self.attack(), generator=generator)
        n = len(labels)
        return (
            result.accuracy,
            result.stderr,
            result.zero_gradients / n,
            result.nonfinite_gradients / n,
        )


@dataclass(frozen=True, kw_only=True)
class FGSMAccuracy(AttackAccuracy):
    """Accuracy under FGSM with the true label."""

    default_label: ClassVar[str] = "fgsm"
    norm: str = "linf"

    def attack(self) -> Attack:
        return FGSM(epsilon=self.epsilon, norm=self.norm)


@dataclass(frozen=True, kw_only=True)
class StepLLAccuracy(AttackAccuracy):
    """Accuracy under one step towards the least likely class."""

    default_label: ClassVar[str] = "step_ll"

    def attack(self) -> Attack:
        return StepLL(epsilon=self.epsilon)


@dataclass(frozen=True, kw_only=True)
class PGDAccuracy(AttackAccuracy):
    """Accuracy under PGD with the true label; step_size None is epsilon / 4."""

    default_label: ClassVar[str] = "pgd"
    step_size: float | None = None
    steps: int = 7
    norm: str = "linf"
    random_start: bool = True
    restarts: int = 1

    def attack(self) -> Attack:
        return PGD(
            epsilon=self.epsilon,
            step_size=self.step_size,
            steps=self.steps,
            norm=self.norm,
            random_start=self.random_start,
            restarts=self.restarts,
        )


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
    "psi": PsiRatio,
    "cost": Cost,
}
