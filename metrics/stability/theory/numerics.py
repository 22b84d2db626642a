"""Integrals of peaks whose width is known, and the highest point of a curve."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np

from metrics.stability.theory.caps import FloatArray

NODES = 10  # of a panel: a normal density over two standard deviations to 13 digits
GRID = 65
ZOOMS = 6

Curve = Callable[[FloatArray], FloatArray]


def integral(function: Curve, low: float, high: float, width: float) -> float:
    """Return the integral of a function with no feature narrower than ``width``.

    Composite Gauss-Legendre quadrature in φ, where u = middle + half the length sin φ: so half
    powers of the distance to either end, as p_n and Q_n have them, are smooth. Functions without a
    sign change are integrated to about 10 digits, small values too: down to 1e-50, from where on
    a peak may be narrower, at the very end of what is possible, and as few as 3 digits are left.

    Args:
        function: takes all points ``(P,)`` at once.
        low, high: the ends; 0 comes back where they do not lie in this order.
        width: 1/√n for p_n and Q_n.
    """
    if not low < high:
        return 0.0
    half = (high - low) / 2
    panels = max(4, math.ceil(math.pi * half / width))
    nodes, weights = _gauss_legendre(NODES)
    step = math.pi / panels
    middles = -math.pi / 2 + step * (np.arange(panels) + 0.5)
    angle = (middles[:, None] + step / 2 * nodes).ravel()
    at = np.clip(low + half * (1 + np.sin(angle)), low, high)
    slope = half * np.cos(angle) * np.tile(weights, panels) * step / 2
    return float(function(at) @ slope)


def highest(function: Curve, low: float, high: float) -> float:
    """Return the largest value of a smooth function found on [low, high], both ends included.

    By a grid, and finer ones around its best point. What comes back is a value of the function:
    where each value is a bound, this is one, if not the sharpest.
    """
    best = -math.inf
    for _ in range(ZOOMS):
        grid = np.linspace(low, high, GRID)
        values = function(grid)
        top = int(np.argmax(values))
        best = max(best, float(values[top]))
        low, high = float(grid[max(top - 1, 0)]), float(grid[min(top + 1, GRID - 1)])
    return best


@cache
def _gauss_legendre(count: int) -> tuple[FloatArray, FloatArray]:
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return nodes, weights
