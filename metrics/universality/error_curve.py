"""Adversarial error over ε, and the power law with which it begins.

The adversarial error is the clean accuracy minus the accuracy at ε (Cubuk et al. 2017, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from metrics.attacks.base import Attack, check_attack
from metrics.attacks.one_step import OneStep
from metrics.robustness.curves import Curve, accuracy_curve, check_epsilons
from metrics.robustness.pointwise import pointwise_curve
from metrics.universality.power_law import PowerLaw, fit_counts

EPSILONS = tuple(np.geomspace(0.05 / 255, 128 / 255, 24).tolist())
"""From what breaks a per mille of a plain net's images to half of the box, 1.41 times apart."""


@dataclass(frozen=True)
class ErrorCurve:
    """Adversarial error of one model under one attack.

    Attributes:
        epsilons: ascending, all above 0.
        clean: accuracy without an attack.
        accuracies: at each epsilon: on its own for attacks of one step, within it for others.
        first: ``(N,)`` long: the index of the first epsilon that breaks the image; -1 where it is
            wrong already, ``len(epsilons)`` where none does.
        law: what the first epsilons follow.
        curve: of which all this is, the accuracy at 0 included.
    """

    epsilons: tuple[float, ...]
    clean: float
    accuracies: tuple[float, ...]
    first: Tensor
    law: PowerLaw
    curve: Curve

    @property
    def errors(self) -> tuple[float, ...]:
        """Clean accuracy minus the accuracy at each epsilon."""
        return tuple(self.clean - accuracy for accuracy in self.accuracies)


def error_curve(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: Attack,
    epsilons: Sequence[float] | None = None,
    *,
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
    fast: bool = True,
) -> ErrorCurve:
    """Return the adversarial error at every epsilon and its power law for small ones.

    The law is fitted to the number of images that each epsilon is the first to break
    (:func:`metrics.universality.power_law.fit_counts`), its plateau is the clean accuracy.

    Args:
        model, images, labels, generator, batch_size, fast: as in
            :func:`metrics.robustness.accuracy.robust_accuracy`.
        attack: its epsilon is replaced, its step size scaled with it.
        epsilons: distinct, above 0; None is :data:`EPSILONS`, in L2 times the root of the number of
            pixels, which is as far in the mean square.

    Raises:
        ValueError: as :func:`metrics.robustness.curves.accuracy_curve`, or an epsilon of 0.
    """
    check_attack(attack)
    if epsilons is None:
        side = math.sqrt(images[0].numel()) if attack.distance == "l2" else 1.0
        epsilons = [side * epsilon for epsilon in EPSILONS]
    levels = check_levels(epsilons)
    of = pointwise_curve if isinstance(attack, OneStep) else accuracy_curve
    settings = {"generator": generator, "batch_size": batch_size, "fast": fast}
    curve = of(model, images, labels, attack, (0.0, *levels), **settings)  # type: ignore[arg-type]
    within = curve.robust.int().cummin(dim=0).values  # what a smaller epsilon broke is broken
    first = within.sum(dim=0) - 1
    counts = torch.bincount(first[first >= 0], minlength=len(levels) + 1)[: len(levels)]
    clean = curve.accuracies[0]
    if clean == 0:
        law = fit_counts(levels, [0] * len(levels), len(first))
    else:
        law = fit_counts(levels, counts.tolist(), len(first), plateau=clean)
    return ErrorCurve(levels, clean, curve.accuracies[1:], first, law, curve)


def check_levels(epsilons: Sequence[float]) -> tuple[float, ...]:
    """Return epsilons in ascending order; raise ValueError for none, repeated ones, or one of 0."""
    levels = check_epsilons(epsilons)
    if levels[0] <= 0:
        raise ValueError(f"epsilons: expected distances > 0, got {levels[0]}")
    return levels
