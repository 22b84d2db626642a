"""The metrics that attack: accuracy under each attack, their worst case, the smallest epsilon."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from metrics.attacks import APGD, FGSM, PGD, Attack, Noise, Square, StepLL
from metrics.metric import Metric
from metrics.robustness.accuracy import cascade, robust_accuracy
from metrics.robustness.smallest import minimal_fgsm
from metrics.robustness.suspicion import FLAGS, suspicion


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
    """Accuracy under PGD; step_size None is epsilon / 4, target None goes away from the label."""

    default_label: ClassVar[str] = "pgd"
    step_size: float | None = None
    steps: int = 7
    norm: str = "linf"
    random_start: bool = True
    restarts: int = 1
    target: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target == "labels":
            raise ValueError(
                "target: expected null, least-likely or runner-up, got labels: those of an "
                "evaluation are the true ones"
            )

    def attack(self) -> Attack:
        return PGD(
            epsilon=self.epsilon,
            step_size=self.step_size,
            steps=self.steps,
            norm=self.norm,
            random_start=self.random_start,
            restarts=self.restarts,
            target=self.target,
        )


@dataclass(frozen=True, kw_only=True)
class APGDAccuracy(AttackAccuracy):
    """Accuracy under Auto-PGD: no step size to choose, a fair judge of a front."""

    default_label: ClassVar[str] = "apgd"
    steps: int = 100
    loss: str = "ce"
    norm: str = "linf"
    restarts: int = 1

    def attack(self) -> Attack:
        return APGD(
            epsilon=self.epsilon,
            steps=self.steps,
            loss=self.loss,
            norm=self.norm,
            restarts=self.restarts,
        )


@dataclass(frozen=True, kw_only=True)
class SquareAccuracy(AttackAccuracy):
    """Accuracy under the Square attack, which sees no gradients."""

    default_label: ClassVar[str] = "square"
    queries: int = 1000

    def attack(self) -> Attack:
        return Square(epsilon=self.epsilon, queries=self.queries)


@dataclass(frozen=True, kw_only=True)
class NoiseAccuracy(AttackAccuracy):
    """Accuracy under random noise: the worst of several draws."""

    default_label: ClassVar[str] = "noise"
    region: str = "cube"
    distribution: str = "uniform"
    draws: int = 10

    def attack(self) -> Attack:
        return Noise(
            epsilon=self.epsilon,
            region=self.region,
            distribution=self.distribution,
            draws=self.draws,
        )


@dataclass(frozen=True, kw_only=True)
class CascadeAccuracy(Metric):
    """Accuracy left by FGSM, then PGD, then Auto-PGD on what stands (L infinity).

    Args:
        epsilon: radius of the attacks, pixels in [0, 1]; a search fills in its recipe's.
        pgd_steps, apgd_steps: steps of the second and the third.
    """

    default_label: ClassVar[str] = "cascade"
    epsilon: float = 8 / 255
    pgd_steps: int = 20
    apgd_steps: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        self.attacks()

    def attacks(self) -> tuple[Attack, ...]:
        """Return the attacks in their order."""
        return (
            FGSM(epsilon=self.epsilon),
            PGD(epsilon=self.epsilon, steps=self.pgd_steps),
            APGD(epsilon=self.epsilon, steps=self.apgd_steps),
        )

    def measure(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> tuple[float, ...]:
        result = cascade(model, images, labels, self.attacks(), generator=generator)
        return result.accuracy, result.stderr


@dataclass(frozen=True, kw_only=True)
class MinimalFGSM(Metric):
    """The smallest epsilon at which FGSM breaks an image: the median, and the share it breaks.

    Images that are wrong already count with 0, those that no epsilon up to ``limit_epsilon``
    breaks as larger than all; a median among the latter is NaN.
    """

    default_label: ClassVar[str] = "min_fgsm"
    suffixes: ClassVar[tuple[str, ...]] = ("_epsilon", "_found")
    limit_epsilon: float = 100 / 255

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.limit_epsilon <= 1:
            raise ValueError(
                f"limit_epsilon: expected a pixel distance in (0, 1], got {self.limit_epsilon}"
            )

    def measure(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> tuple[float, ...]:
        sizes = minimal_fgsm(model, images, labels, limit=self.limit_epsilon).size
        median = sizes.median()
        found = sizes.isfinite().double().mean()
        return median.item() if median.isfinite() else float("nan"), found.item()


@dataclass(frozen=True, kw_only=True)
class Suspicion(Metric):
    """Flags that a robust accuracy may be a masked gradient; ``suspicious`` counts those raised.

    Each flag has its value, its threshold, and 1.0 where it is raised.

    Args:
        epsilon: radius at which robustness is claimed; a search fills in its recipe's.
        queries: of the Square attack.
        draws: of uniform noise.
    """

    default_label: ClassVar[str] = ""
    suffixes: ClassVar[tuple[str, ...]] = (
        "suspicious",
        *(f"suspicion_{flag}{part}" for flag in FLAGS for part in ("", "_threshold", "_raised")),
    )
    limit: int | None = 200
    epsilon: float = 8 / 255
    queries: int = 100
    draws: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        Square(epsilon=self.epsilon, queries=self.queries)  # refuse now, not after training
        Noise(epsilon=self.epsilon, draws=self.draws)

    @property
    def score_names(self) -> tuple[str, ...]:
        return tuple(f"{self.label}_{s}" if self.label else s for s in self.suffixes)

    def measure(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> tuple[float, ...]:
        flags = suspicion(
            model,
            images,
            labels,
            epsilon=self.epsilon,
            queries=self.queries,
            draws=self.draws,
            generator=generator,
        )
        values = [v for f in flags for v in (f.value, f.threshold, float(f.raised))]
        return float(sum(f.raised for f in flags)), *values
