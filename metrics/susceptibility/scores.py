"""Ψ as scores of a trial: of the trained net, of the untrained one, after one epoch, at r → 0."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from metrics.metric import Metric
from metrics.susceptibility import (
    drift,
    robustness_radius,
    sphere_attack,
    susceptibility,
    susceptibility_limit,
)
from metrics.susceptibility.exploration import check_settings
from metrics.susceptibility.means import bootstrap, geometric_mean
from metrics.susceptibility.normalisation import FEW, check_batch_norm


@dataclass(frozen=True, kw_only=True)
class PsiRatio(Metric):
    """The susceptibility ratio Ψ̂, its 95 % interval, and 1.0 where it is saturated.

    Saturation is NaN where one radius cannot tell. ``_cancelled`` is the share of ψ whose output
    change drowns in rounding; ``_radius_mean`` and ``_radius_min`` the estimated robustness radius
    of the inputs, in RMS; ``_passes`` what it cost: images forwards and backwards.

    A model whose outputs do not move at all (a ψ is 0) has no Ψ̂: the score is NaN, and the
    trial fails, instead of winning.
    """

    default_label: ClassVar[str] = "psi"
    suffixes: ClassVar[tuple[str, ...]] = (
        "",
        "_low",
        "_high",
        "_saturated",
        "_cancelled",
        "_radius_mean",
        "_radius_min",
        "_passes",
    )
    limit: int | None = 64
    radii: tuple[float, ...] = (1e-4, 1e-3, 1e-2)
    law: str = "fixed"
    steps: int = 5
    step: str = "rel"
    learning_rate: float = 0.01
    restarts: int = 1
    start: str = "gaussian"
    batch_norm: str = "eval"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(**self._settings())
        if self.batch_norm != "eval" and self.limit is not None and self.limit < FEW:
            raise ValueError(
                f"expected limit >= {FEW} for batch_norm {self.batch_norm}, got {self.limit}"
            )

    def _settings(self) -> dict[str, Any]:
        """Return the settings that are :func:`susceptibility`'s: all but those of every metric."""
        own = {field.name for field in fields(Metric)}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in own}

    def measure(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> tuple[float, ...]:
        s = susceptibility(model, images, **self._settings(), generator=generator)
        value, low, high = (math.nan if s.underflows else v for v in (s.value, *s.interval))
        radius = robustness_radius(model, images, value, batch_norm=self.batch_norm)
        return (
            value,
            low,
            high,
            math.nan if s.saturated is None else s.saturated,
            s.cancelled / s.psi.numel(),
            radius.mean,
            radius.minimum,
            s.passes,
        )


@dataclass(frozen=True, kw_only=True)
class PsiInit(PsiRatio):
    """Ψ̂ of the untrained net: what it costs to guess how robust it will be, without training.

    Batch norms take the statistics of the clean inputs: their running ones are still empty.
    """

    stage: ClassVar[str] = "init"
    default_label: ClassVar[str] = "psi_init"
    limit: int | None = 32
    batch_norm: str = "frozen"


@dataclass(frozen=True, kw_only=True)
class PsiEpoch1(PsiRatio):
    """Ψ̂ after the first epoch, by the statistics of the clean inputs: running ones still lag."""

    stage: ClassVar[str] = "epoch1"
    default_label: ClassVar[str] = "psi_epoch1"
    limit: int | None = 32
    batch_norm: str = "frozen"


@dataclass(frozen=True, kw_only=True)
class PsiLimit(Metric):
    """What Ψ̂ tends to as r → 0: the geometric mean of sigma_max(J) sqrt(N/M), and its interval.

    A constant model has the limit 0, a geometric mean of which is none: the score is NaN.
    """

    default_label: ClassVar[str] = "psi_limit"
    suffixes: ClassVar[tuple[str, ...]] = ("", "_low", "_high")
    limit: int | None = 64
    rounds: int = 10
    batch_norm: str = "eval"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_batch_norm(self.batch_norm)
        if self.batch_norm == "batch":
            raise ValueError("batch_norm: expected eval or frozen for a limit, got 'batch'")
        if self.rounds < 1:
            raise ValueError(f"expected rounds >= 1, got {self.rounds}")

    def measure(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> tuple[float, ...]:
        found = susceptibility_limit(
            model, images, rounds=self.rounds, batch_norm=self.batch_norm, generator=generator
        ).cpu()
        if (found == 0).any():
            return math.nan, math.nan, math.nan
        return geometric_mean(found).item(), *bootstrap(found.unsqueeze(0))


@dataclass(frozen=True, kw_only=True)
class DriftRate(Metric):
    """How the drift of hidden states grows per layer.

    ``_lambda`` is ln(growth of the output) / layers, as the paper has it; ``_slope`` the slope of
    ln drift over the states before the head; both NaN where a state does not move at all.
    ``_cancelled`` is the share of distances that drown in rounding.
    """

    default_label: ClassVar[str] = "drift"
    suffixes: ClassVar[tuple[str, ...]] = ("_lambda", "_slope", "_cancelled")
    limit: int | None = 32
    radius: float = 1e-3
    steps: int = 5
    step: str = "rel"
    batch_norm: str = "eval"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings((self.radius,), steps=self.steps, step=self.step, batch_norm=self.batch_norm)

    def measure(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> tuple[float, ...]:
        moved = sphere_attack(
            model,
            images,
            self.radius,
            steps=self.steps,
            step=self.step,
            batch_norm=self.batch_norm,
            generator=generator,
        )
        found = drift(model, images, moved, batch_norm=self.batch_norm)
        cancelled = found.cancelled / found.distance.numel()
        if (found.distance == 0).any():
            return math.nan, math.nan, cancelled
        return found.lyapunov, found.slope, cancelled
