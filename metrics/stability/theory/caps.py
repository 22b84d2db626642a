"""How much of a ball lies beyond a plane, in any dimension.

A plane at distance c from the centre of the unit ball of R^n cuts off the share Q_n(c) of its
volume. Every probability of Sutton et al. 2023 comes down to such caps: with n they vanish like
(1 - c²)^(n/2), for which reason noise hardly ever leads where an attack leads always.

The paper bounds the caps (lemma 23). The exact share is standard, and not in the paper.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

SMALL = 0.05
"""Below it c² is what the beta function is given, above it 1 - c²: whichever rounding spares."""


def cap_fraction(n: ArrayLike, c: ArrayLike) -> FloatArray:
    """Return Q_n(c) = P(u_1 > c), u uniform in the unit ball of R^n, to 10 digits.

    It is I_{1-c²}((n+1)/2, 1/2) / 2 for 0 <= c <= 1, I the regularised incomplete beta function,
    and Q_n(-c) = 1 - Q_n(c). Not in the paper; its bound is :func:`cap_bound`.

    Args:
        n: dimensions, integers.
        c: distances of the plane from the centre; 0 comes back from 1 on, and 1 up to -1.

    Returns:
        Their common shape. What is below 1e-308 loses digits, and is 0 in the end.

    Raises:
        ValueError: a dimension below 1 or no integer, a distance that is NaN.
        ImportError: scipy is not installed.
    """
    special = _special()
    dimension, distance = np.broadcast_arrays(_dimensions(n), _numbers("c", c))
    a = (dimension + 1) / 2
    size = np.minimum(np.abs(distance), 1)
    beyond = np.zeros(size.shape)
    small = size < SMALL
    beyond[small] = special.betaincc(0.5, a[small], np.square(size[small])) / 2
    large = ~small
    beyond[large] = special.betainc(a[large], 0.5, (1 - size[large]) * (1 + size[large])) / 2
    return np.where(distance < 0, 1 - beyond, beyond)


def cap_bound(n: ArrayLike, c: ArrayLike, concentration: float = 1.0) -> FloatArray:
    """Return A^n (1 - c²)^(n/2) / 2, which Q_n(c) does not exceed for A = 1.

    Source: lemma 23. It holds up to a hemisphere: for c < 0 it would be false. A is the
    concentration of definition 3: a density of at most A^n times the uniform one has at most A^n
    times as much mass in a cap.

    Raises:
        ValueError: a dimension below 1 or no integer, c outside [0, 1], A below 1.
    """
    dimension, distance = _dimensions(n), _numbers("c", c)
    if not np.all((distance >= 0) & (distance <= 1)):
        raise ValueError(f"c: expected 0 <= c <= 1, up to a hemisphere, got {c!r}")
    if not concentration >= 1:
        raise ValueError(f"concentration: expected a number >= 1, got {concentration!r}")
    with np.errstate(divide="ignore", over="ignore"):  # c = 1 gives 0, a large A^n infinity
        half_squared = (np.log1p(-distance) + np.log1p(distance)) / 2
        bound: FloatArray = np.exp(dimension * (half_squared + np.log(concentration))) / 2
    return bound


def coordinate_density(n: int, u: ArrayLike) -> FloatArray:
    """Return p_n(u), the density of one coordinate of a uniform draw from the unit ball of R^n.

    It is Γ(n/2 + 1) / (√π Γ((n+1)/2)) (1 - u²)^((n-1)/2) on [-1, 1] and 0 outside: about a normal
    density of standard deviation 1/√n.

    Raises:
        ValueError: a dimension below 1 or no integer, u that is NaN.
        ImportError: scipy is not installed.
    """
    special = _special()
    _dimensions(n)
    at = _numbers("u", u)
    size = np.minimum(np.abs(at), 1)
    scale = special.poch((n + 1) / 2, 0.5) / np.sqrt(np.pi)  # no difference of large logarithms
    inside: FloatArray = scale * ((1 - size) * (1 + size)) ** ((n - 1) / 2)
    return np.where(np.abs(at) > 1, 0.0, inside)


def linear_prediction(n: ArrayLike, delta: ArrayLike, draws: int) -> FloatArray:
    """Return the probability that one of several random perturbations crosses a plane.

    It is 1 - (1 - Q_n(1/δ))^draws: what the random susceptibility (8) would be if the decision
    surface were a plane at the length e(x) of the smallest attack found. Ours, not the paper's.

    Args:
        n: dimensions.
        delta: radius of the ball that the perturbations are uniform in, in units of e(x): up to 1
            the plane is out of reach, and the probability 0.
        draws: independent perturbations.

    Raises:
        ValueError: a dimension or a number of draws below 1 or no integer, delta below 0 or NaN.
        ImportError: scipy is not installed.
    """
    length = _numbers("delta", delta)
    if np.any(length < 0):
        raise ValueError(f"delta: expected lengths >= 0, got {delta!r}")
    if isinstance(draws, bool) or not isinstance(draws, int | np.integer) or draws < 1:
        raise ValueError(f"draws: expected an integer >= 1, got {draws!r}")
    with np.errstate(divide="ignore"):
        one = cap_fraction(n, 1 / length)
    several: FloatArray = -np.expm1(draws * np.log1p(-one))  # one draw's share may be 1e-30
    return several


def _dimensions(n: ArrayLike) -> NDArray[Any]:
    dimension = np.asarray(n)
    if not np.issubdtype(dimension.dtype, np.integer) or np.any(dimension < 1):
        raise ValueError(f"n: expected integers >= 1, got {n!r}")
    return dimension


def _numbers(name: str, values: ArrayLike) -> FloatArray:
    numbers = np.asarray(values, dtype=np.float64)
    if np.isnan(numbers).any():
        raise ValueError(f"{name}: expected numbers, got NaN in {values!r}")
    return numbers


def _special() -> Any:
    try:
        import scipy.special
    except ImportError as error:
        raise ImportError(
            "scipy: expected it installed, for exact shares of caps, got none"
        ) from error
    return scipy.special
