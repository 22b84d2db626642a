"""Which scores go together: correlations over the complete trials, each with a 95 % interval.

The intervals take the trials for independent draws, one pair of scores at a time. A sampler that
seeks good architectures does not draw so, and of many pairs a few look strong by chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from nas.errors import InputError
from nas.types import FloatArray

QUANTILE = 1.959963984540054  # of the standard normal distribution at 0.975
BOOKKEEPING = ("number", "epochs", "seconds", "repeat_of", "peak_memory_bytes", "micro_batch")


@dataclass(frozen=True)
class Correlation:
    """A correlation in [-1, 1], the ends of its 95 % interval, and of how many pairs.

    ``value`` is NaN where a sequence is constant, ``low`` and ``high`` where there is no interval.
    """

    value: float
    low: float
    high: float
    n: int


def pearson(a: ArrayLike, b: ArrayLike) -> Correlation:
    """Return Pearson's r of two ``(n,)`` sequences; pairs with a NaN are left out.

    Fisher's z with standard error ``1 / sqrt(n - 3)``: no interval below 4 pairs, nor on an exact
    line, where z is infinite and says nothing of how few points lie on it. NaN with an infinity.

    Raises:
        ValueError: not two sequences of one length.
    """
    x, y = _pairs(a, b)
    if _undefined(x, y) or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return Correlation(math.nan, math.nan, math.nan, len(x))
    found = stats.pearsonr(x - x.mean(), y - y.mean())  # scipy warns of a large mean
    r = float(found.statistic)
    if 1 - abs(r) < 1e-12:
        return Correlation(math.copysign(1, r), math.nan, math.nan, len(x))
    if len(x) < 4:
        return Correlation(r, math.nan, math.nan, len(x))
    interval = found.confidence_interval(0.95)
    return Correlation(r, float(interval.low), float(interval.high), len(x))


def spearman(a: ArrayLike, b: ArrayLike) -> Correlation:
    """Return Spearman's rank correlation of two ``(n,)`` sequences, without pairs with a NaN.

    Fisher's z with standard error ``sqrt((1 + r^2 / 2) / (n - 3))`` (Bonett & Wright 2000,
    Psychometrika 65, 23-28), none below 4 pairs. Of 3,000 normal samples of 10, 20 and 50 it
    covered 0.94 to 0.96 up to a true value of 0.9, 0.93 to 0.95 at 0.97.

    At -1 and 1 z is infinite, although few pairs often line up so by chance: there the interval is
    that of the nearest attainable value, two neighbours exchanged, stretched to the value.

    Raises:
        ValueError: not two sequences of one length.
    """
    x, y = _pairs(a, b)
    if _undefined(x, y):
        return Correlation(math.nan, math.nan, math.nan, len(x))
    x, y = stats.rankdata(x), stats.rankdata(y)
    r = inner = _perfect(x, y)
    if r:
        gap = np.diff(np.unique(x)).min()
        inner = r * float(1 - gap**2 / np.square(x - x.mean()).sum())
    else:
        r = inner = float(stats.spearmanr(x, y).statistic)
    return _correlation(r, len(x), inner=inner, variance=1 + inner**2 / 2, lost=3)


def kendall(a: ArrayLike, b: ArrayLike) -> Correlation:
    """Return Kendall's tau-b of two ``(n,)`` sequences; pairs with a NaN are left out.

    Fisher's z with standard error ``sqrt(0.437 / (n - 4))`` (Bonett & Wright 2000, as above, after
    Fieller, Hartley & Pearson 1957), none below 5 pairs; at -1 and 1 as ``spearman``. Of 3,000
    normal samples of 10, 20 and 50 it covered 0.94 to 0.95 up to a true value of 0.6; at 0.84 it
    is too short, 0.81 of 10 and 0.89 of 20.

    Raises:
        ValueError: not two sequences of one length.
    """
    x, y = _pairs(a, b)
    if _undefined(x, y):
        return Correlation(math.nan, math.nan, math.nan, len(x))
    x, y = stats.rankdata(x), stats.rankdata(y)
    r = inner = _perfect(x, y)
    if r:
        ties = np.unique(x, return_counts=True)[1]
        untied = (len(x) ** 2 - np.square(ties).sum()) / 2
        inner = r * float(1 - (ties[1:] + ties[:-1]).min() / untied)
    else:
        r = inner = float(stats.kendalltau(x, y, method="asymptotic").statistic)
    return _correlation(r, len(x), inner=inner, variance=0.437, lost=4)


def correlations(table: pd.DataFrame, names: Sequence[str] | None = None) -> pd.DataFrame:
    """Return one row for every pair of scores of the complete trials, the strongest first.

    Args:
        table: a trial table.
        names: numeric columns; where None all of them but ``BOOKKEEPING``. Constant ones are
            left out.

    Returns:
        Columns ``a, b, n, spearman, spearman_low, spearman_high, kendall, kendall_low,
        kendall_high``; ``a`` comes before ``b`` in ``names``.

    Raises:
        InputError: no such numeric column.
    """
    numeric = list(table.select_dtypes("number").columns)
    names = [n for n in numeric if n not in BOOKKEEPING] if names is None else names
    if unknown := [name for name in names if name not in numeric]:
        raise InputError(f"expected numeric columns ({', '.join(numeric)}), got {unknown}")
    complete = table[table["status"] == "complete"]
    varied = {n: complete[n].to_numpy(float, na_value=np.nan) for n in names}
    varied = {n: column for n, column in varied.items() if complete[n].nunique() > 1}
    rows = [
        (a, b, rho.n, rho.value, rho.low, rho.high, tau.value, tau.low, tau.high)
        for a, b in combinations(varied, 2)
        for rho, tau in [(spearman(varied[a], varied[b]), kendall(varied[a], varied[b]))]
    ]
    parts = [f"{kind}{end}" for kind in ("spearman", "kendall") for end in ("", "_low", "_high")]
    found = pd.DataFrame(rows, columns=["a", "b", "n", *parts])
    found = found.astype({"a": str, "b": str, "n": int, **dict.fromkeys(parts, float)})
    return found.sort_values(
        "spearman", key=abs, ascending=False, kind="stable", ignore_index=True
    )  # NaN last


def _pairs(a: ArrayLike, b: ArrayLike) -> tuple[FloatArray, FloatArray]:
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"expected two sequences of one length, got {x.shape} and {y.shape}")
    there = ~(np.isnan(x) | np.isnan(y))
    return x[there], y[there]


def _undefined(x: FloatArray, y: FloatArray) -> bool:
    return len(x) < 2 or bool((x == x[0]).all() or (y == y[0]).all())


def _perfect(x: FloatArray, y: FloatArray) -> float:
    """Return 1 where the ranks are the same, -1 where they are reversed, else 0."""
    return float((x == y).all()) or -float((x == len(x) + 1 - y).all())


def _correlation(value: float, n: int, *, inner: float, variance: float, lost: int) -> Correlation:
    """Return the value with the interval of ``inner``, stretched to include the value.

    ``variance / (n - lost)`` is the variance of Fisher's z.
    """
    if n <= lost:
        return Correlation(value, math.nan, math.nan, n)
    half = QUANTILE * math.sqrt(variance / (n - lost))
    low, high = (math.tanh(math.atanh(inner) + side * half) for side in (-1, 1))
    return Correlation(value, min(low, value), max(high, value), n)
