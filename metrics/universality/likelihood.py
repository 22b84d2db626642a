"""The likelihood of counts in cells under a power law with a first correction, and its profile."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

LEAST, MOST = math.log(0.01), math.log(100)  # of exponents
MOST_BEND = 1e3
PER_CELL = 5.0  # expected events behind a goodness of fit
GOLDEN = 0.381966
FINE = 0.02  # of a standard error
PARAMETERS = 2  # that are fitted: B and D

Array = NDArray[np.float64]


class Likelihood:
    """Of the cells of one range, given B and D.

    Args:
        x: ends of the cells, the last of which is c; the first begins at 0.
        k: events in each.
        correction: as in :func:`metrics.universality.power_law.fit_counts`.
    """

    def __init__(self, x: Array, k: Array, correction: str) -> None:
        self.logs, self.k, self.saturating = np.log(x / x[-1]), k, correction == "saturating"
        self.events = k.sum()
        self.filled = k > 0

    def shares(self, exponent: float, bend: float) -> tuple[Array, Array]:
        """Return the probabilities of the cells, and their derivatives by D."""
        power = np.exp(exponent * self.logs)
        if self.saturating:
            below = 1 + bend * power
            whole, slopes = power * (1 + bend) / below, power * (1 - power) / below**2
        else:
            left = 1 - np.exp(self.logs)
            whole = power * np.exp(bend * left)
            slopes = whole * left
        return np.diff(whole, prepend=0.0), np.diff(slopes, prepend=0.0)

    def __call__(self, exponent: float, bend: float) -> float:
        shares, _ = self.shares(exponent, bend)
        inside = shares[self.filled]
        if not (shares > 0).all() or not np.isfinite(inside).all():
            return -math.inf
        return float(self.k[self.filled] @ np.log(inside))

    def best_bend(self, exponent: float, bend: float) -> tuple[float, float]:
        """Return the most likely D of this B by Fisher scoring from ``bend``, and its likelihood.

        F rises throughout: D stays above -1 of an error, and below B of a smooth density.
        """
        least, most = (-1.0, MOST_BEND) if self.saturating else (-MOST_BEND, exponent)
        bend = min(bend, 0.99 * most)
        here = self(exponent, bend)
        for _ in range(30):
            shares, slopes = self.shares(exponent, bend)
            score = float((self.k / shares * slopes).sum())
            step = score / (self.events * float((slopes**2 / shares).sum()))
            for _ in range(30):
                there = bend + step
                value = self(exponent, there) if least < there < most else -math.inf
                if value >= here:
                    break
                step /= 2
            else:
                break
            gained, bend, here = value - here, there, value
            if gained < 1e-7:
                break
        return bend, here


def highest(profile: Callable[[float], float], start: float, step: float) -> tuple[float, float]:
    """Return where a function with one peak is highest, by golden section, and its value there."""
    low, middle, high = start - step, start, start + step
    values = {v: profile(v) for v in (low, middle, high)}
    while values[low] > values[middle] and low > LEAST:
        low, middle, high = low - 2 * (middle - low), low, middle
        values[low] = profile(low)
    while values[high] > values[middle] and high < MOST:
        low, middle, high = middle, high, high + 2 * (high - middle)
        values[high] = profile(high)
    while high - low > FINE * step:
        wide = high - middle > middle - low
        there = middle + GOLDEN * ((high if wide else low) - middle)
        values[there] = profile(there)
        if values[there] > values[middle]:
            low, middle, high = (middle, there, high) if wide else (low, there, middle)
        else:
            low, high = (low, there) if wide else (there, high)
    return middle, values[middle]


def falls(profile: Callable[[float], float], top: float, level: float, step: float) -> float:
    """Return where a function that falls from ``top`` on, by ``step`` at first, is ``level``."""
    inside, outside = top, top + step
    while profile(outside) > level:
        inside, outside = outside, outside + step
        if not LEAST < outside < MOST:
            return outside
    while abs(outside - inside) > FINE * abs(step):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if profile(middle) > level else (inside, middle)
    return (inside + outside) / 2


def p_value(k: Array, expected: Array) -> float:
    """Return the probability of so large a G statistic; cells are joined until each expects 5."""
    seen, wanted = [0.0], [0.0]
    for count, share in zip(k, expected, strict=True):
        if wanted[-1] >= PER_CELL:
            seen.append(0.0)
            wanted.append(0.0)
        seen[-1] += count
        wanted[-1] += share
    if wanted[-1] < PER_CELL and len(wanted) > 1:
        seen[-2:], wanted[-2:] = [sum(seen[-2:])], [sum(wanted[-2:])]
    o, e = np.array(seen), np.array(wanted)
    freedom = len(o) - 1 - PARAMETERS
    if freedom < 1:
        return 1.0
    g = 2 * float((o * np.log(np.where(o > 0, o, 1) / e)).sum())
    half = torch.tensor([freedom / 2, max(g, 0.0) / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))
