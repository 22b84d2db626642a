"""The small end of a distribution as a power law, F(x) = A x^B (1 + O(x)): A, B and how sure.

Cubuk et al. 2017 fit straight lines to the small part of two such distributions: the adversarial
error, the share of images that some perturbation of size up to ε breaks (their Figures 1, 2, 5 and
10 to 13), and the differences of logits (Figures 4 and 6), whose density then goes as Δ^(B - 1).
Points of one curve are of the same images, so least squares through them knows no honest interval.
Here the images are counted instead: so many first broken between two epsilons. Of those up to the
end c of the fitted range, the model is

    P(x) = (x / c)^B (1 + D) / (1 + D (x / c)^B)        of an error, which comes to a plateau
    P(x) = (x / c)^B exp(D (1 - x / c))                 of a smooth density

a power law with its first correction: D, fitted along, tells how the curve bends. B is the exponent
that is left as x goes to 0; its interval is that of the profile likelihood, and as wide as not
knowing D makes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from metrics.universality.likelihood import PER_CELL, Array, Likelihood, falls, highest, p_value

SHARES = {"saturating": 1 / 3, "smooth": 0.1}  # of the plateau, up to which a range may go
ACCEPTED = 0.01  # least probability of so bad a fit
FEWEST = 20  # events in a range
CELLS = 40  # of a sample
QUANTILE = 3.841458820694124  # of chi squared with one degree of freedom at 0.95


@dataclass(frozen=True)
class PowerLaw:
    """A fitted power law F(x) = ``amplitude`` x^``exponent`` for small x.

    NaN everywhere where there was too little to fit.

    Attributes:
        exponent: B.
        interval: its 95 % profile likelihood interval.
        line: the slope of the straight line through the logarithms of all points up to that share
            of the plateau, by least squares, as the paper's figures show it; an accelerating curve
            has a larger one than B.
        amplitude: A, a share at x = 1.
        bend: D, how much of the power law is lost at the end of the range; 0 is a straight line.
        low, high: the fitted range; ``low`` is the smallest edge above 0.
        events: how many lie in it.
        total: of how many.
        p_value: probability of so bad a fit or a worse one, if this law were true.
    """

    exponent: float
    interval: tuple[float, float]
    line: float
    amplitude: float
    bend: float
    low: float
    high: float
    events: int
    total: int
    p_value: float

    def __call__(self, x: float | Array) -> Array:
        """Return A x^B: the straight line in a picture with logarithmic axes."""
        line: Array = self.amplitude * np.asarray(x, dtype=float) ** self.exponent
        return line


def fit_counts(
    edges: Sequence[float],
    counts: Sequence[int],
    total: int,
    *,
    plateau: float = 1.0,
    correction: str = "saturating",
    exponent: float | None = None,
) -> PowerLaw:
    """Return the power law of events that are known to lie between two edges.

    The range is the largest up to an edge at which F is at most a third of ``plateau`` (a tenth for
    densities, whose further corrections matter sooner) and the fit has a p-value of 0.01 or more;
    where no range of 20 events has, that with the largest p-value.
    With a smaller p-value the numbers are no power law there, whatever its exponent.

    Args:
        edges: ascending, the first above 0: x of the ends of the cells, the first of which
            begins at 0.
        counts: of events in each cell.
        total: of how many the events are a share.
        plateau: what F comes to at large x.
        correction: ``saturating``, of an error, or ``smooth``, of a density.
        exponent: B, where it is known: then only A and D are fitted.

    Raises:
        ValueError: edges that do not ascend, other numbers of counts than of edges, negative
            counts, more of them than ``total``, a plateau outside (0, 1], an unknown correction, or
            an exponent that is not above 0.
    """
    x, k = _checked(edges, counts, total, plateau, correction)
    if exponent is not None and not 0 < exponent < math.inf:
        raise ValueError(f"exponent: expected a number > 0 or None, got {exponent}")
    shares = k.cumsum() / total
    small = shares <= SHARES[correction] * plateau
    ends = np.flatnonzero(small & (k.cumsum() >= FEWEST))
    line = _slope(x, k, small)
    fits = []
    for end in ends[::-1]:
        if np.count_nonzero(k[: end + 1]) < 3:
            break
        fitted = replace(
            _fitted(x[: end + 1], k[: end + 1], total, correction, exponent), line=line
        )
        if fitted.p_value >= ACCEPTED:
            return fitted
        fits.append(fitted)
    if fits:
        return max(fits, key=lambda fit: fit.p_value)
    nan = math.nan
    return PowerLaw(nan, (nan, nan), nan, nan, nan, nan, nan, 0, total, nan)


def fit_sample(
    sample: torch.Tensor | Array, *, correction: str = "smooth", exponent: float | None = None
) -> PowerLaw:
    """Return the power law at the small end of a sample of positive numbers.

    It is counted in 40 cells whose edges are quantiles of its smallest fifth, closer together
    towards 0; zeros count as smaller than all others.

    Args:
        sample: numbers >= 0; infinity is larger than all, NaN is left out.
        correction, exponent: as in :func:`fit_counts`; ``smooth`` for densities.
    """
    values = torch.as_tensor(sample).detach().cpu().double().numpy().ravel()
    values = np.sort(values[~np.isnan(values)])
    least = values[: len(values) // 5 + 1]
    least = least[(least > 0) & np.isfinite(least)]
    if len(least) < FEWEST:
        return fit_counts([1.0], [0], max(len(values), 1))
    places = np.geomspace(min(FEWEST / 2, len(least) / 4), len(least), CELLS)
    edges = np.unique(least[np.unique(places.round().astype(int).clip(1) - 1)])
    counts = np.diff(np.searchsorted(values, edges, side="right"), prepend=0)
    return fit_counts(
        edges.tolist(), counts.tolist(), len(values), correction=correction, exponent=exponent
    )


# ------------------------------------------------------------------------------------------ fitting


def _checked(
    edges: Sequence[float], counts: Sequence[int], total: int, plateau: float, correction: str
) -> tuple[Array, Array]:
    x, k = np.asarray(edges, dtype=float), np.asarray(counts, dtype=float)
    if x.ndim != 1 or len(x) == 0 or not (np.diff(x) > 0).all() or not 0 < x[0] < x[-1] + 1:
        raise ValueError(f"edges: expected ascending numbers > 0, got {list(edges)}")
    if k.shape != x.shape or (k < 0).any() or k.sum() > total:
        raise ValueError(
            f"counts: expected {len(x)} numbers >= 0, at most {total} in all, got {list(counts)}"
        )
    if not 0 < plateau <= 1:
        raise ValueError(f"plateau: expected a share in (0, 1], got {plateau}")
    if correction not in SHARES:
        raise ValueError(f"correction: expected one of {list(SHARES)}, got {correction!r}")
    return x, k


def _fitted(x: Array, k: Array, total: int, correction: str, known: float | None) -> PowerLaw:
    likelihood = Likelihood(x, k, correction)
    if known is not None:
        bend, _ = likelihood.best_bend(known, 0.0)
        return _law(likelihood, x, total, known, bend, (known, known))
    bends: dict[float, float] = {}

    def profile(log_exponent: float) -> float:
        near = min(bends, key=lambda known: abs(known - log_exponent), default=None)
        begin = 0.0 if near is None else bends[near]
        bends[log_exponent], value = likelihood.best_bend(math.exp(log_exponent), begin)
        return value

    step = 2 / math.sqrt(likelihood.events)  # a standard error, were x known exactly
    middle, most = highest(profile, math.log(_straight(likelihood)), step)
    exponent, bend = math.exp(middle), bends[middle]
    ends = [falls(profile, middle, most - QUANTILE / 2, 2 * s) for s in (-step, step)]
    low, high = (math.exp(end) for end in ends)
    return _law(likelihood, x, total, exponent, bend, (low, high))


def _law(
    likelihood: Likelihood,
    x: Array,
    total: int,
    exponent: float,
    bend: float,
    interval: tuple[float, float],
) -> PowerLaw:
    high, events = float(x[-1]), likelihood.events
    # F(c) is the events' share; A c^B is what it would be without the bend.
    unbent = 1 + bend if likelihood.saturating else math.exp(bend)
    amplitude = events / total * unbent / high**exponent
    return PowerLaw(
        exponent,
        interval,
        math.nan,
        float(amplitude),
        bend,
        float(x[0]),
        high,
        int(events),
        total,
        p_value(likelihood.k, events * likelihood.shares(exponent, bend)[0]),
    )


def _slope(x: Array, k: Array, low: NDArray[np.bool_]) -> float:
    """Return the slope of the least squares line through log shares over log x, where ``low``."""
    inside = low & (k.cumsum() >= PER_CELL)
    if np.count_nonzero(inside) < 2:
        return math.nan
    a, b = np.log(x[inside]), np.log(k.cumsum()[inside])
    a = a - a.mean()
    return float(a @ b / (a @ a))


def _straight(likelihood: Likelihood) -> float:
    """Return the exponent of a straight line through the shares: where to begin."""
    inner = likelihood.k.cumsum()[:-1]
    use = inner > 0
    x, y = likelihood.logs[:-1][use], np.log(inner[use] / likelihood.events)
    return float(np.clip((x @ y) / (x @ x), 0.02, 50))
