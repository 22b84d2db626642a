"""How far a sum of two random coordinates reaches: a point of a ball, and noise from another.

By quadrature over one of the two, to about 10 digits down to 1e-50 and to 3 below. Not in the
paper, which bounds these probabilities.
"""

from __future__ import annotations

import math

from metrics.stability.theory.caps import FloatArray, cap_fraction, coordinate_density
from metrics.stability.theory.domain import check_from
from metrics.stability.theory.numerics import integral


def sum_beyond(n: int, distance: float, scale: float) -> float:
    """Return P(u_1 + scale v_1 > distance), u and v independent, uniform in the unit ball of R^n.

    Args:
        n: dimension.
        distance: of any sign.
        scale: of v, >= 0; 0 gives Q_n(distance).

    Raises:
        ValueError: a dimension below 1, a scale below 0 or not finite, a distance that is NaN.
    """
    check_from("scale", scale, 0)
    if distance < 0:
        return 1 - sum_beyond(n, -distance, scale)
    if scale > 1:  # the narrower of the two is integrated over
        distance, scale = distance / scale, 1 / scale
    if scale == 0:
        return float(cap_fraction(n, distance))

    def at(v: FloatArray) -> FloatArray:
        return scale * coordinate_density(n, distance - scale * v) * cap_fraction(n, v)

    low = max(-1.0, (distance - 1) / scale)
    certain = float(cap_fraction(n, distance + scale))  # u_1 so large that every v will do
    return certain + integral(at, low, 1.0, 1 / math.sqrt(n))


def half_beyond(n: int, distance: float, scale: float) -> float:
    """Return P(scale v_1 > distance + |u_1|), u and v as above.

    Args:
        n: dimension.
        distance: >= 0.
        scale: of v, >= 0.

    Raises:
        ValueError: a dimension below 1, a distance or scale below 0 or not finite.
    """
    check_from("scale", scale, 0)
    check_from("distance", distance, 0)
    if scale <= distance:
        return 0.0

    def over_u(u: FloatArray) -> FloatArray:
        return 2 * coordinate_density(n, u) * cap_fraction(n, (distance + u) / scale)

    def over_v(v: FloatArray) -> FloatArray:
        return 2 * scale * coordinate_density(n, scale * v - distance) * cap_fraction(n, v)

    if scale > 1:  # again over the narrower of the two
        return integral(over_u, 0.0, min(1.0, scale - distance), 1 / math.sqrt(n))
    return integral(over_v, distance / scale, min(1.0, (1 + distance) / scale), 1 / math.sqrt(n))
