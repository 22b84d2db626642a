"""How adversarial accuracy goes with other numbers of trained models: trends and their averages.

Fig. 9 of Cubuk et al. 2017 is such a picture: it sets the adversarial accuracy of a search's models
against their parameters and their clean accuracy, and asks how far it varies among the accurate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nas.analysis.correlation import Correlation, spearman
from nas.errors import InputError
from nas.types import FloatArray

ABOVE = 0.85  # the paper's clean accuracy
FEWEST = 3  # models; below there is nothing to describe


@dataclass(frozen=True)
class Trend:
    """Adversarial accuracy against another number of the models.

    Attributes:
        rows: ``(n,)``, of the given sequences, so that ``x`` increases.
        x: ``(n,)``, the other number.
        y: ``(n,)``, adversarial accuracy in [0, 1].
        average: ``(n,)``, of ``y`` as :func:`running_average` has it.
        window: models of one average.
        correlation: Spearman's, of ``x`` and ``y``.
    """

    rows: NDArray[np.intp]
    x: FloatArray
    y: FloatArray
    average: FloatArray
    window: int
    correlation: Correlation


@dataclass(frozen=True)
class TrendStatistics:
    """What Fig. 9 shows: left and middle as trends, right as the adversarial accuracies.

    Attributes:
        n: models with both accuracies.
        left_out: models without one of them.
        by_clean: over clean accuracy.
        by_parameters: over parameters, of the models that have a number of them; None where
            fewer than three do.
        above: the clean accuracy in [0, 1] that the accurate models exceed.
        median: whether that is the median instead of what was asked for, which too few exceed;
            the accurate models then reach or exceed it.
        exceeding: how many exceed what was asked for.
        accurate: ``(k,)``, rows of the accurate models in the given sequences.
        accuracies: ``(k,)``, their adversarial accuracies in [0, 1].
    """

    n: int
    left_out: int
    by_clean: Trend
    by_parameters: Trend | None
    above: float
    median: bool
    exceeding: int
    accurate: NDArray[np.intp]
    accuracies: FloatArray

    @property
    def mean(self) -> float:
        """Of the adversarial accuracies of the accurate models."""
        return float(self.accuracies.mean())

    @property
    def deviation(self) -> float:
        """Of the same, of the sample (n - 1)."""
        return float(self.accuracies.std(ddof=1))

    @property
    def range(self) -> float:
        """Largest minus smallest of the same."""
        return float(np.ptp(self.accuracies))


def trend_statistics(
    clean: ArrayLike,
    adversarial: ArrayLike,
    parameters: ArrayLike | None = None,
    *,
    above: float = ABOVE,
    fewest: int = 10,
    window: int | None = None,
) -> TrendStatistics:
    """Return the statistics of models, one element of each sequence a model.

    Args:
        clean: ``(n,)``, in [0, 1]; a model whose number is not finite is left out.
        adversarial: likewise.
        parameters: likewise, but such a model is left out of the trend over parameters alone.
        above: the clean accuracy that an accurate model exceeds.
        fewest: accurate models, at least two; where fewer exceed ``above`` it is the median.
        window: models of a running average, odd; None takes :func:`default_window`.

    Raises:
        ValueError: sequences of different lengths.
        InputError: fewer than three models, or another window.
    """
    x, y = np.asarray(clean, dtype=np.float64), np.asarray(adversarial, dtype=np.float64)
    size = np.full(x.shape, math.nan) if parameters is None else np.asarray(parameters, np.float64)
    if x.ndim != 1 or not x.shape == y.shape == size.shape:
        raise ValueError(
            f"expected sequences of one length, got {x.shape}, {y.shape} and {size.shape}"
        )
    there = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    if len(there) < FEWEST:
        raise InputError(
            f"expected at least {FEWEST} models with both accuracies, got {len(there)}"
        )
    sized = there[np.isfinite(size[there])]
    accurate = there[x[there] > above]
    exceeding = len(accurate)
    median = exceeding < max(fewest, 2)
    if median:
        above = float(np.median(x[there]))
        accurate = there[x[there] >= above]
    return TrendStatistics(
        n=len(there),
        left_out=len(x) - len(there),
        by_clean=_trend(there, x, y, window),
        by_parameters=_trend(sized, size, y, window) if len(sized) >= FEWEST else None,
        above=above,
        median=median,
        exceeding=exceeding,
        accurate=accurate,
        accuracies=y[accurate],
    )


def default_window(n: int) -> int:
    """Return the square root of the number of models, odd and at least 5."""
    return max(5, math.isqrt(n) // 2 * 2 + 1)


def running_average(x: FloatArray, y: FloatArray, window: int) -> FloatArray:
    """Return the running average of ``y`` over ``x``: the mean over a model and its neighbours.

    The window is centred on a model. At the ends it shrinks to the neighbours that there are, down
    to half: kept centred it would end in single models. Models of one ``x`` share one average,
    the mean over all orders in which they can stand.

    Args:
        x: ``(n,)``, increasing.
        y: ``(n,)``.
        window: models, odd: one and as many on either side.

    Raises:
        InputError: a window that is even or below 1.
    """
    if window < 1 or window % 2 == 0:
        raise InputError(f"expected an odd window >= 1, got {window}")
    _, group, counts = np.unique(x, return_inverse=True, return_counts=True)
    y = (np.bincount(group, y) / counts)[group]
    sums = np.concatenate([[0.0], np.cumsum(y)])
    places = np.arange(len(y))
    first = np.maximum(places - window // 2, 0)
    end = np.minimum(places + window // 2 + 1, len(y))
    means = (sums[end] - sums[first]) / (end - first)
    average: FloatArray = (np.bincount(group, means) / counts)[group]
    return average


def _trend(rows: NDArray[np.intp], x: FloatArray, y: FloatArray, window: int | None) -> Trend:
    """Return the trend over these rows; ``x`` and ``y`` hold all."""
    rows = rows[np.argsort(x[rows], kind="stable")]
    window = default_window(len(rows)) if window is None else window
    return Trend(
        rows=rows,
        x=x[rows],
        y=y[rows],
        average=running_average(x[rows], y[rows], window),
        window=window,
        correlation=spearman(x[rows], y[rows]),
    )
