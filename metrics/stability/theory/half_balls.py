"""The two half-balls: no point is on the wrong side, and yet most have an attack nearby.

Class 0 is uniform in the half of a unit ball around -ε e_1 that is turned away from the plane
x_1 = 0, class 1 in its mirror image; a gap of 2ε lies between. Sutton et al. 2023, section 6.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from metrics.stability.theory.caps import FloatArray, cap_bound, cap_fraction
from metrics.stability.theory.coordinates import vectors
from metrics.stability.theory.domain import check_between, check_dimension, check_from
from metrics.stability.theory.numerics import highest
from metrics.stability.theory.statement import AT_LEAST, AT_MOST, Statement
from metrics.stability.theory.sums import half_beyond

FARTHEST = 10.0
"""Where the search for the best p of theorem 20 ends, in units of min(1, δ): p = 1 - e^-50."""


@dataclass(frozen=True)
class HalfBalls:
    """Two classes that are mirror images of each other, told apart without an error.

    Args:
        n: dimension.
        epsilon: half the gap between them.

    Raises:
        ValueError: a value out of range.
    """

    n: int
    epsilon: float

    def __post_init__(self) -> None:
        check_dimension(self.n)
        check_from("epsilon", self.epsilon, 0)

    def outward(self, unit: FloatArray) -> FloatArray:
        """Return how far beyond the plane points lie, by coordinates of the unit ball."""
        return -self.epsilon - np.abs(unit)

    def points(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return ``(N, n)`` float64 points of the classes ``labels`` ``(N,)``."""
        x = vectors(self.n, len(labels), generator)
        x[:, 0] = (2 * labels - 1) * (self.epsilon + x[:, 0].abs())
        return x

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return ``(count, n)`` float64 points, each class as likely, and their labels."""
        labels = torch.randint(2, (count,), generator=generator, device=generator.device)
        return self.points(labels, generator), labels


def theorem_18(model: HalfBalls, delta: float) -> Statement:
    """An attack of length δ exists with probability 1 - (1 - (δ-ε)²)^(n/2) at least.

    For ε <= δ <= 1 + ε. The exact value 1 - 2 Q_n(δ-ε) is ours.

    Raises:
        ValueError: a length outside the theorem's domain.
    """
    check_between("delta", delta, model.epsilon, 1 + model.epsilon, "theorem 18")
    c = min(delta - model.epsilon, 1.0)  # rounding may pass 1
    bound = 1 - 2 * float(cap_bound(model.n, c))
    exact = 1 - 2 * float(cap_fraction(model.n, c))
    return Statement("theorem 18", "susceptible", delta, AT_LEAST, bound, exact)


def theorem_19(model: HalfBalls, delta: float) -> Statement:
    """Noise, uniform in a ball of radius δ, misleads with (1 - (ε/δ)²)^(n/2) / 2 at most.

    For δ >= ε, at ε = 0 as the limit: one half, or none where δ is 0 too. The exact value, an
    integral, is ours.

    Raises:
        ValueError: a length outside the theorem's domain.
    """
    check_from("delta", delta, model.epsilon, "theorem 19")
    bound = float(cap_bound(model.n, model.epsilon / delta if delta > 0 else 1.0))
    exact = half_beyond(model.n, model.epsilon, delta)
    return Statement("theorem 19", "noise", delta, AT_MOST, bound, exact)


def theorem_20(model: HalfBalls, delta: float) -> Statement:
    """Noise is no help against a plane that the data touches: the bound does not vanish with n.

    For ε = 0: the supremum over p of p Q_n(h/δ), h = √(1 - (1-p)^(2/n)), within which at least the
    share p of the points lie of the plane. This form for finite n and the exact value are ours;
    the paper's is the limit, :func:`theorem_20_limit`, and its printed form is not certain.

    Raises:
        ValueError: a model with a gap, or a length below 0 or not finite.
    """
    check_between("epsilon", model.epsilon, 0, 0, "theorem 20")
    check_from("delta", delta, 0, "theorem 20")
    n = model.n

    def share(a: FloatArray) -> FloatArray:  # a = √(-2 ln(1-p)), so that h is about a/√n
        h = np.sqrt(-np.expm1(-np.square(a) / n))
        return -np.expm1(-np.square(a) / 2) * cap_fraction(n, h / delta)

    bound = highest(share, 0.0, FARTHEST * min(1.0, delta)) if delta > 0 else 0.0
    exact = half_beyond(n, 0.0, delta)
    return Statement("theorem 20", "noise", delta, AT_LEAST, bound, exact, ours=True)


def theorem_20_limit(delta: float) -> Statement:
    """Theorem 20 for n → ∞: the supremum over p of p (1 - Φ(√(-2 ln(1-p)) / δ)).

    The exact limit is arctan(δ)/π, which is ours; the paper's bound is 1.5 to 40 times below it
    for δ from 5 down to 0.1. For every n the exact value lies between that limit and δ/4 for
    δ <= 1, above the limit for δ >= 1, and is 1/4 at δ = 1.

    Raises:
        ValueError: a length below 0 or not finite.
    """
    check_from("delta", delta, 0, "theorem 20")

    def share(a: FloatArray) -> FloatArray:
        beyond = np.array([math.erfc(v / (delta * math.sqrt(2))) / 2 for v in a])
        value: FloatArray = -np.expm1(-np.square(a) / 2) * beyond
        return value

    bound = highest(share, 0.0, FARTHEST * min(1.0, delta)) if delta > 0 else 0.0
    return Statement("theorem 20", "noise", delta, AT_LEAST, bound, math.atan(delta) / math.pi)
