"""Robustness as scores of a trial: accuracy, clean or attacked, smallest epsilons, suspicion."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from metrics.attacks import APGD, ATTACKS, FGSM, PGD, Attack, Noise, Square
from metrics.metric import Metric, first_line
from metrics.robustness.accuracy import correct, robust_accuracy, standard_error, wilson
from metrics.robustness.cascade import cascade
from metrics.robustness.flags import FLAGS, HARMLESS
from metrics.robustness.smallest import minimal_fgsm
from metrics.robustness.suspicion import suspicion

ACCURACY = ("_accuracy", "_accuracy_stderr", "_accuracy_low", "_accuracy_high")
"""A share of images, its standard error, which is never 0, and its 95 % Wilson interval."""
OWN_EPSILON = "expected an epsilon of its own for norm l2 (such as 0.5), got none"


@dataclass(frozen=True, kw_only=True)
class CleanAccuracy(Metric):
    """Share of images that are classified right."""

    default_label: ClassVar[str] = "clean"
    suffixes: ClassVar[tuple[str, ...]] = ACCURACY

    def measure(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> tuple[float, ...]:
        accuracy = correct(model, images, labels).double().mean().item()
        return _share(accuracy, len(labels))


@dataclass(frozen=True, kw_only=True)
class AttackAccuracy(Metric):
    """Share of images that stay right under an attack.

    ``_zero_gradients`` and ``_nonfinite_gradients`` are the shares of images whose loss gradient
    says nothing: such images look robust to any gradient attack.

    Args:
        attack: any; its name in ``ATTACKS`` begins the scores' names.

    Raises:
        ValueError: an attack towards given labels: those of an evaluation are the true ones.
    """

    suffixes: ClassVar[tuple[str, ...]] = (
        *ACCURACY,
        "_zero_gradients",
        "_nonfinite_gradients",
    )
    default_label: ClassVar[str] = "attack"
    attack: Attack

    def __post_init__(self) -> None:
        super().__post_init__()
        check_own_target(self.attack)

    @classmethod
    def of(
        cls, kind: type[Attack], *, label: str = "", limit: int | None = None, **settings: Any
    ) -> AttackAccuracy:
        """Return the metric of ``kind(**settings)``.

        Raises:
            ValueError: an L2 attack without an epsilon: the usual one is an L infinity radius.
        """
        attack = kind(**{**kind.as_metric, **settings})
        if attack.distance == "l2" and not ("epsilon" in settings or kind.own_epsilon):
            raise ValueError(OWN_EPSILON)
        return cls(attack=attack, label=label, limit=limit)

    @property
    def prefix(self) -> str:
        return self.label or name_of(self.attack).rpartition(":")[2].lower().replace("-", "_")

    @property
    def about(self) -> str:
        return f"Accuracy under: {first_line(self.attack)}"

    def settings(self) -> dict[str, Any]:
        return {"limit": self.limit, **settings_of(self.attack)}

    def identity(self) -> tuple[str, Mapping[str, Any]]:
        later = _LATER.get(type(self.attack), {})
        settings = {k: v for k, v in self.settings().items() if k not in later or v != later[k]}
        return f"{type(self.attack).__name__}Accuracy", settings

    def measure(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> tuple[float, ...]:
        result = robust_accuracy(model, images, labels, self.attack, generator=generator)
        n = len(labels)
        return (
            *_share(result.accuracy, n),
            result.zero_gradients / n,
            result.nonfinite_gradients / n,
        )


@dataclass(frozen=True, kw_only=True)
class CascadeAccuracy(Metric):
    """Accuracy left by several attacks, each on what the ones before it left.

    Args:
        attacks: in their order.

    Raises:
        ValueError: no attacks, or one towards given labels.
    """

    default_label: ClassVar[str] = "cascade"
    suffixes: ClassVar[tuple[str, ...]] = ACCURACY
    attacks: tuple[Attack, ...] = (FGSM(), PGD(steps=20), APGD(steps=100))

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.attacks:
            raise ValueError("attacks: expected one or more, got none")
        for attack in self.attacks:
            AttackAccuracy(attack=attack)

    def settings(self) -> dict[str, Any]:
        attacks = [{"name": name_of(attack), **settings_of(attack)} for attack in self.attacks]
        return {"limit": self.limit, "attacks": attacks}

    def identity(self) -> tuple[str, Mapping[str, Any]]:
        """Return what there was when a cascade was always FGSM, PGD and Auto-PGD, where it is."""
        kinds = [type(attack) for attack in self.attacks]
        if kinds == [FGSM, PGD, APGD]:
            _, pgd, apgd = (settings_of(attack) for attack in self.attacks)
            usual = {"epsilon": pgd["epsilon"], "pgd_steps": pgd["steps"]}
            usual |= {"apgd_steps": apgd["steps"]}
            if self.attacks == usual_cascade(**usual):
                return "CascadeAccuracy", {"limit": self.limit, **usual}
        return super().identity()

    def measure(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> tuple[float, ...]:
        result = cascade(model, images, labels, self.attacks, generator=generator)
        return _share(result.accuracy, len(labels))


def usual_cascade(epsilon: float, pgd_steps: int, apgd_steps: int) -> tuple[Attack, ...]:
    """Return FGSM, PGD and Auto-PGD at one epsilon."""
    return (
        FGSM(epsilon=epsilon),
        PGD(epsilon=epsilon, steps=pgd_steps),
        APGD(epsilon=epsilon, steps=apgd_steps),
    )


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

    Each flag has its value, its threshold, and 1.0 where it is raised. Of a check that could not
    run on the model, value and flag are NaN, and it is not counted; nor is ``saturated_logits``,
    which is no doubt of what is measured here.

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
        raised = [math.nan if f.left_out else float(f.raised) for f in flags]
        values = [
            v for f, up in zip(flags, raised, strict=True) for v in (f.value, f.threshold, up)
        ]
        count = sum(f.raised for f in flags if f.name not in HARMLESS)
        return float(count), *values


# ------------------------------------------------------------------------------------------- parts

_LATER: dict[type[Attack], dict[str, Any]] = {APGD: {"target": None}, Square: {"share": 0.8}}
"""Settings that metrics once did not have: where they are as they were then, the draws are too."""


def _share(accuracy: float, n: int) -> tuple[float, ...]:
    """Return the values of ``ACCURACY``."""
    return accuracy, standard_error(accuracy, n), *wilson(accuracy, n)


def check_own_target(attack: Attack) -> None:
    """Raise ValueError for an attack towards given labels."""
    if attack.towards == "labels":
        raise ValueError(
            "target: expected null, least-likely or runner-up, got labels: those of an "
            "evaluation are the true ones"
        )


def name_of(attack: Attack) -> str:
    """Return the attack's name in ``ATTACKS``, or else ``pkg.module:Class``."""
    kind = type(attack)
    known = (name for name, named in ATTACKS.items() if named is kind)
    return next(known, f"{kind.__module__}:{kind.__qualname__}")


def settings_of(attack: Attack) -> dict[str, Any]:
    """Return the keyword arguments that make the attack again."""
    return {f.name: getattr(attack, f.name) for f in fields(attack) if f.init}
