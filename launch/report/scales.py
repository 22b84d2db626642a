"""Axes as numbers: which values they span, where their ticks stand and how those are written."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from launch.report.plots import Axis, Number

MARGIN = 0.04  # of the span, on either side of the data


@dataclass(frozen=True)
class Scale:
    """From values to pixels: ``low`` to ``high`` along ``begin`` to ``end``."""

    low: float
    high: float
    begin: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        share = (value - low) / (high - low)
        return self.begin + share * (self.end - self.begin)


def shown(value: Number, axis: Axis) -> bool:
    """Whether an axis has a place for a value."""
    return value is not None and math.isfinite(value) and not (axis.log and value <= 0)


def span(values: Iterable[Number], axis: Axis) -> tuple[float, float]:
    """Return the smallest and the largest value that an axis shows, with a margin."""
    if axis.categories:
        return -0.5, len(axis.categories) - 0.5
    there = [float(v) for v in values if v is not None and shown(v, axis)] or [1.0]
    low, high = min(there), max(there)
    if axis.log:
        gap = (math.log10(high) - math.log10(low)) * MARGIN or 0.3
        low, high = low / 10**gap, high * 10**gap
    else:
        gap = (high - low) * MARGIN or abs(high) * 0.05 or 0.5
        low, high = low - gap, high + gap
    low = low if axis.low is None else axis.low
    high = high if axis.high is None else axis.high
    return low, high if high > low else low + 1.0


def ticks(low: float, high: float, *, log: bool, count: int = 6) -> list[float]:
    """Return round values between two, about ``count`` of them."""
    if log and high / low >= 20:
        every = max(1, math.ceil(math.log10(high / low) / count))
        first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
        decades = [10.0**p for p in range(first, last + 1, every)]
        if len(decades) >= 3:
            return decades
        fine = [m * 10.0**p for p in range(first - 1, last + 1) for m in (1, 2, 5)]
        return [v for v in fine if low <= v <= high]
    step = _round_step((high - low) / count)
    first = math.ceil(low / step - 1e-9)
    return [
        i * step
        for i in range(first, first + 4 * count)
        if i * step <= high + 1e-9 * step and not (log and i <= 0)
    ]


def written(value: float, *, percent: bool = False) -> str:
    """Return a tick's text: ``20 %``, ``1.5 M``, ``0.05``."""
    if percent:
        return f"{100 * value:.4g} %"
    size = abs(value)
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= factor:
            return f"{value / (1e3 if unit == 'k' else factor):.4g} {unit}"
    if value and size < 1e-3:
        mantissa, _, power = f"{value:.2e}".partition("e")
        return f"{float(mantissa):g}e{int(power)}"
    return f"{value:.4g}"


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= step * (1 - 1e-9))
