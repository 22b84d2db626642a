"""The two-ball model, in which attacks almost always succeed and noise hardly ever does.

Class 0 lies in a ball around -ε e_1, class 1 in one around ε e_1, and the plane x_1 = 0 tells them
apart. The theorems of Sutton et al. 2023 (section 4) ask for ball radius 1, their corollaries to
the general model for any; both let the density be up to A^n times the uniform one (definition 3).
Here the classes are uniform in balls of radius r/A inside those, pushed against the side that is
nearest to the plane: the least certain place for accuracy. A = 1 is the paper's uniform case.
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
from metrics.stability.theory.sums import sum_beyond


@dataclass(frozen=True)
class TwoBalls:
    """Two classes that are mirror images of each other.

    Args:
        n: dimension.
        epsilon: distance of the balls' centres from the plane; the balls overlap where it is below
            the radius. The paper's k in the corollaries.
        radius: r of the balls that the classes lie in.
        concentration: A >= 1: each class fills a ball of radius r/A.

    Raises:
        ValueError: a value out of range.
    """

    n: int
    epsilon: float
    radius: float = 1.0
    concentration: float = 1.0

    def __post_init__(self) -> None:
        check_dimension(self.n)
        check_from("epsilon", self.epsilon, 0)
        check_from("concentration", self.concentration, 1)
        if not 0 < self.radius < math.inf:
            raise ValueError(f"radius: expected a finite number > 0, got {self.radius!r}")

    @property
    def filled(self) -> float:
        """The radius of the ball that a class fills."""
        return self.radius / self.concentration

    @property
    def depth(self) -> float:
        """How far that ball's centre is from the plane; negative on the wrong side."""
        return self.epsilon - (self.radius - self.filled)

    def outward(self, unit: FloatArray) -> FloatArray:
        """Return how far beyond the plane points lie, by coordinates of the unit ball."""
        return self.filled * unit - self.depth

    def points(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return ``(N, n)`` float64 points of the classes ``labels`` ``(N,)``."""
        x = self.filled * vectors(self.n, len(labels), generator)
        x[:, 0] += (2 * labels - 1) * self.depth
        return x

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return ``(count, n)`` float64 points, each class as likely, and their labels."""
        labels = torch.randint(2, (count,), generator=generator, device=generator.device)
        return self.points(labels, generator), labels


def theorem_4(model: TwoBalls) -> Statement:
    """Accuracy is at least 1 - A^n (1 - ε²)^(n/2) / 2, for 0 <= ε <= 1.

    Raises:
        ValueError: a model outside the theorem's domain.
    """
    return _accuracy(_of_radius_1(model, "theorem 4"), "theorem 4")


def corollary_10(model: TwoBalls) -> Statement:
    """Theorem 4 for radius r: 1 - A^n (1 - (ε/r)²)^(n/2) / 2, for 0 <= ε <= r."""
    return _accuracy(model, "corollary 10")


def theorem_5(model: TwoBalls, delta: float) -> Statement:
    """An attack of length δ exists with probability 1 - A^n (1 - (δ-ε)²)^(n/2) / 2 at least.

    For ε <= δ <= 1 + ε. A point on the wrong side counts, with s = 0.

    Raises:
        ValueError: a model or length outside the theorem's domain.
    """
    return _susceptible(_of_radius_1(model, "theorem 5"), delta, "theorem 5")


def corollary_12(model: TwoBalls, delta: float) -> Statement:
    """Theorem 5 for radius r: 1 - A^n (1 - ((δ-ε)/r)²)^(n/2) / 2, for ε <= δ <= r + ε."""
    return _susceptible(model, delta, "corollary 12")


def theorem_6(model: TwoBalls, delta: float) -> Statement:
    """Noise, uniform in a ball of radius δ, misleads with A^n (1 - (ε/(1+δ))²)^(n/2) at most.

    For ε <= 1 + δ.

    Raises:
        ValueError: a model or length outside the theorem's domain.
    """
    return _misled(_of_radius_1(model, "theorem 6"), delta, "theorem 6")


def corollary_15(model: TwoBalls, delta: float) -> Statement:
    """Theorem 6 for radius r: A^n (1 - (ε/(r+δ))²)^(n/2), for ε <= r + δ."""
    return _misled(model, delta, "corollary 15")


def theorem_6_sharper(model: TwoBalls, delta: float) -> Statement:
    """Theorem 6 with the best split of ε between point and noise: ours, never above the paper's.

    The plane is crossed only if the noise reaches t or the point comes within t of it. Of the caps
    of both, the paper takes A^n for either, and then t = εδ/(1+δ), where they are equal. The
    noise's has no A^n: the least over t of (1 - (t/δ)²)^(n/2) / 2 + A^n (1 - (ε-t)²)^(n/2) / 2.

    Raises:
        ValueError: a model or length outside the theorem's domain.
    """
    paper = theorem_6(model, delta)
    n, epsilon = model.n, model.epsilon

    def minus_both(share: FloatArray) -> FloatArray:  # of δ that the noise has to reach
        rest = np.clip(epsilon - share * delta, 0, 1)
        return -(cap_bound(n, share) + cap_bound(n, rest, model.concentration))

    # ε - t <= 1 and t <= min(δ, ε); without noise the plane itself is the only split.
    low = max(0.0, (epsilon - 1) / delta) if delta else 1.0
    high = min(1.0, epsilon / delta) if delta else 1.0
    bound = -highest(minus_both, min(low, 1.0), max(min(low, 1.0), high))
    bound = min(bound, paper.bound)  # which is one of the values, up to rounding
    return Statement("theorem 6", "noise", delta, AT_MOST, bound, paper.exact, ours=True)


def theorem_8(model: TwoBalls, gamma: float) -> Statement:
    """What leads one point beyond the plane by γ leads another of its class to the other side.

    With probability (1 - A^n (1 - (γ/2)²)^(n/2) / 2)² at least, for 0 <= γ <= 2. Whether the paper
    prints this square or the weaker 1 - A^n (...)^(n/2) is not certain; both hold. Cutting the
    bracket at 0 before it is squared is ours: a negative one says nothing, but its square might.

    Raises:
        ValueError: a model or margin outside the theorem's domain.
    """
    return _transferred(_of_radius_1(model, "theorem 8"), gamma, "theorem 8")


def corollary_17(model: TwoBalls, gamma: float) -> Statement:
    """Theorem 8 for radius r: (1 - A^n (1 - (γ/2r)²)^(n/2) / 2)², for 0 <= γ <= 2r."""
    return _transferred(model, gamma, "corollary 17")


def _accuracy(model: TwoBalls, name: str) -> Statement:
    check_between("epsilon", model.epsilon, 0, model.radius, name)
    bound = 1 - _cap(model, model.epsilon / model.radius)
    exact = 1 - float(cap_fraction(model.n, _relative_depth(model)))
    return Statement(name, "correct", 0.0, AT_LEAST, bound, exact)


def _susceptible(model: TwoBalls, delta: float, name: str) -> Statement:
    check_between("delta", delta, model.epsilon, model.radius + model.epsilon, name)
    bound = 1 - _cap(model, (delta - model.epsilon) / model.radius)
    exact = 1 - float(cap_fraction(model.n, delta / model.filled - _relative_depth(model)))
    return Statement(name, "susceptible", delta, AT_LEAST, bound, exact)


def _misled(model: TwoBalls, delta: float, name: str) -> Statement:
    check_from("delta", delta, 0, name)
    check_between("epsilon", model.epsilon, 0, model.radius + delta, name)
    bound = 2 * _cap(model, model.epsilon / (model.radius + delta))
    exact = 0.0  # out of reach: rounding might see a sliver of the ball
    if model.epsilon < model.radius + delta:
        exact = sum_beyond(model.n, _relative_depth(model), delta / model.filled)
    return Statement(name, "noise", delta, AT_MOST, bound, exact)


def _transferred(model: TwoBalls, gamma: float, name: str) -> Statement:
    check_between("gamma", gamma, 0, 2 * model.radius, name)
    bracket = 1 - _cap(model, gamma / (2 * model.radius))
    exact = 1 - sum_beyond(model.n, gamma / model.filled, 1.0)
    return Statement(name, "transfer", gamma, AT_LEAST, max(bracket, 0.0) ** 2, exact)


def _relative_depth(model: TwoBalls) -> float:
    """Return depth / filled, with no more rounding than ε and r have."""
    return 1 + (model.epsilon - model.radius) / model.filled


def _cap(model: TwoBalls, c: float) -> float:
    return float(cap_bound(model.n, min(c, 1.0), model.concentration))  # rounding may pass 1


def _of_radius_1(model: TwoBalls, name: str) -> TwoBalls:
    if model.radius != 1:
        raise ValueError(
            f"radius: expected 1 in {name}, got {model.radius!r}; its corollary has a radius"
        )
    return model
