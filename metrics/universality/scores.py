"""Universality as scores of a trial: how its error grows, how near its logits are to each other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from metrics.attacks import FGSM, Attack
from metrics.attacks.geometry import check_length, check_norm
from metrics.metric import Metric
from metrics.robustness.scores import check_own_target, name_of, settings_of
from metrics.universality.differences import logit_differences
from metrics.universality.error_curve import EPSILONS, ErrorCurve, check_levels, error_curve
from metrics.universality.measured import compare
from metrics.universality.power_law import PowerLaw, fit_sample

OF_LAW = (
    "_exponent",
    "_exponent_low",
    "_exponent_high",
    "_line",
    "_amplitude",
    "_fit_end",
    "_fit_images",
    "_fit_p",
)
RANKS = (2, 3, 4)


@dataclass(frozen=True, kw_only=True)
class ErrorLaw(Metric):
    """Adversarial error over epsilons, and its power law A ε^B where it is small.

    ``_exponent`` is B with its 95 % interval, ``_line`` the slope of a straight line through
    all small errors, ``_amplitude`` A, ``_fit_end`` the largest epsilon of the fit,
    ``_fit_images`` how many images it counts, ``_fit_p`` its goodness; ``_at_E`` is the error at
    each epsilon E. NaN where there is too little to fit.

    Args:
        attack: any; its epsilon is replaced, its step size scaled with it.
        epsilons: distances above 0; empty is 24 of them, 0.05/255 to 128/255, in L infinity.

    Raises:
        ValueError: an attack towards given labels, or one in L2 without epsilons of its own.
    """

    default_label: ClassVar[str] = "error"
    attack: Attack = FGSM()  # noqa: RUF009  a frozen value
    epsilons: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_own_target(self.attack)
        given = self.epsilons or EPSILONS
        if given is EPSILONS and self.attack.distance == "l2":
            raise ValueError("epsilons: expected ones of their own for norm l2, got none")
        levels = check_levels(given)
        for epsilon in levels:
            self.attack.with_epsilon(epsilon)
        if len(set(map(_name, levels))) < len(levels):
            raise ValueError(f"epsilons: expected ones that differ in three digits, got {given}")
        object.__setattr__(self, "epsilons", levels)

    @property
    def score_names(self) -> tuple[str, ...]:
        at = (f"_at_{_name(epsilon)}" for epsilon in self.epsilons)
        return tuple(f"{self.prefix}{suffix}" for suffix in (*OF_LAW, *at))

    def settings(self) -> dict[str, Any]:
        attack = {"name": name_of(self.attack), **settings_of(self.attack)}
        return {"limit": self.limit, "attack": attack, "epsilons": self.epsilons}

    def found(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> ErrorCurve:
        """Return the curve that the scores are of."""
        x, y = images[: self.limit], labels[: self.limit]
        return error_curve(model, x, y, self.attack, self.epsilons, generator=generator)

    def measure(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> tuple[float, ...]:
        found = self.found(model, images, labels, generator)
        law = found.law
        own = (law.line, law.amplitude, law.high, law.events, law.p_value)
        return (law.exponent, *law.interval, *own, *found.errors)


@dataclass(frozen=True, kw_only=True)
class LogitDifferences(Metric):
    """Differences between the largest logit and the next ones: their densities at 0.

    ``_12_density`` is that of the difference between the two largest at 0, in shares of images for
    a unit of logits; ``_12_median`` their median, and ``_12_nearness`` the product of both, which
    does not depend on the scale of logits. ``_12_exponent``, ``_13_exponent`` and ``_14_exponent``
    are those of power laws with which the densities begin, with 95 % intervals (Cubuk et al. 2017:
    0, 1 and 2, whatever the model); NaN where there are fewer classes, or too few images.
    """

    default_label: ClassVar[str] = "logits"
    suffixes: ClassVar[tuple[str, ...]] = (
        "_12_density",
        "_12_median",
        "_12_nearness",
        *(f"_1{rank}_exponent{end}" for rank in RANKS for end in ("", "_low", "_high")),
    )

    def measure(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> tuple[float, ...]:
        differences = logit_differences(model, images)
        near = differences[:, 0]
        density, median = fit_sample(near, exponent=1).amplitude, near.median().item()
        laws = [_tail(differences, rank) for rank in RANKS]
        tails = [(v - 1 for v in (law.exponent, *law.interval)) for law in laws]
        return (density, median, density * median, *(v for tail in tails for v in tail))


@dataclass(frozen=True, kw_only=True)
class LinearResponseAgreement(Metric):
    """How well a line through the logits foresees the smallest epsilon that breaks an image.

    ``_decile`` is the median of predicted over measured epsilon in the tenth of the broken images
    that needed the least, ``_median`` that of all of them, ``_rank`` Spearman's correlation of the
    two, ``_broken`` the share of right images that break up to the limit, ``_12_first`` the share
    of these that cross to the class with the second largest logit (Cubuk et al. 2017: > 95 %),
    ``_epsilon`` the median of the predicted epsilons. NaN of no broken images.

    Args:
        norm: ``l2`` or ``linf``.
        limit_epsilon: largest epsilon measured; None is 50/255, in L2 as far in the mean square.
    """

    default_label: ClassVar[str] = "linear"
    suffixes: ClassVar[tuple[str, ...]] = (
        "_decile",
        "_median",
        "_rank",
        "_broken",
        "_12_first",
        "_epsilon",
    )
    norm: str = "linf"
    limit_epsilon: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_norm(self.norm)
        if self.limit_epsilon is not None:
            check_length("limit_epsilon", self.limit_epsilon, self.norm, zero=False)

    def measure(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> tuple[float, ...]:
        found = compare(model, images, labels, norm=self.norm, limit=self.limit_epsilon)
        right = found.response.right
        count = int(right.sum())
        return (
            found.lowest_decile,
            found.median_ratio(),
            found.rank_correlation,
            int(found.successful.sum()) / count if count else math.nan,
            found.runner_up_first(),
            found.predicted[right].median().item() if count else math.nan,
        )


def _tail(differences: Tensor, rank: int) -> PowerLaw:
    """Return the law of the differences to the logit of a rank; of none where there is no such."""
    return fit_sample(differences[:, rank - 2 : rank - 1])


def _name(epsilon: float) -> str:
    return f"{epsilon:.3g}"
