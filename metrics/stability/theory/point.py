"""One point beside a plane, and noise around it: theorem 1 of Sutton et al. 2023."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from metrics.stability.theory.caps import FloatArray, cap_bound, cap_fraction
from metrics.stability.theory.domain import check_dimension, check_from
from metrics.stability.theory.statement import AT_MOST, Statement


@dataclass(frozen=True)
class Point:
    """A class that is the one point -ε e_1, and one that is ε e_1.

    Args:
        n: dimension.
        epsilon: distance from the plane x_1 = 0. At 0 both lie on it, which f takes for class 1.

    Raises:
        ValueError: a value out of range.
    """

    n: int
    epsilon: float

    def __post_init__(self) -> None:
        check_dimension(self.n)
        check_from("epsilon", self.epsilon, 0)

    def outward(self, unit: FloatArray) -> FloatArray:
        """Return -ε for each of the coordinates."""
        return np.full_like(unit, -self.epsilon)

    def points(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return ``(N, n)`` float64: the point of each label."""
        x = torch.zeros(len(labels), self.n, dtype=torch.float64, device=labels.device)
        x[:, 0] = (2 * labels - 1) * self.epsilon
        return x


def theorem_1(model: Point, delta: float) -> Statement:
    """Noise, uniform in a ball of radius δ, crosses with (1 - (ε/δ)²)^(n/2) / 2 at most.

    For 0 < ε <= δ, and at ε = 0 as the limit: one half, or none where δ is 0 too. The exact value
    is Q_n(ε/δ), which the paper has no name for.

    Raises:
        ValueError: a length outside the theorem's domain.
    """
    check_from("delta", delta, model.epsilon, "theorem 1")
    c = model.epsilon / delta if delta > 0 else 1.0
    bound, exact = float(cap_bound(model.n, c)), float(cap_fraction(model.n, c))
    return Statement("theorem 1", "noise", delta, AT_MOST, bound, exact)
