"""The two-ball models of Sutton et al.: probabilities, the paper's bounds, and Monte Carlo."""

from metrics.stability.theory.balls import (
    TwoBalls,
    corollary_10,
    corollary_12,
    corollary_15,
    corollary_17,
    theorem_4,
    theorem_5,
    theorem_6,
    theorem_6_sharper,
    theorem_8,
)
from metrics.stability.theory.caps import cap_bound, cap_fraction, linear_prediction
from metrics.stability.theory.coordinates import coordinates
from metrics.stability.theory.estimate import Estimate, attack_direction, estimate
from metrics.stability.theory.half_balls import (
    HalfBalls,
    theorem_18,
    theorem_19,
    theorem_20,
    theorem_20_limit,
)
from metrics.stability.theory.point import Point, theorem_1
from metrics.stability.theory.statement import Statement

__all__ = [
    "Estimate",
    "HalfBalls",
    "Point",
    "Statement",
    "TwoBalls",
    "attack_direction",
    "cap_bound",
    "cap_fraction",
    "coordinates",
    "corollary_10",
    "corollary_12",
    "corollary_15",
    "corollary_17",
    "estimate",
    "linear_prediction",
    "theorem_1",
    "theorem_4",
    "theorem_5",
    "theorem_6",
    "theorem_6_sharper",
    "theorem_8",
    "theorem_18",
    "theorem_19",
    "theorem_20",
    "theorem_20_limit",
]
