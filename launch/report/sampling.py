"""Which trials a chart draws where they are too many, and the sentence that says so."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from nas.types import FloatArray

MOST = 2000
"""Points of a chart: more make a page heavy, and hide each other."""


def few(n: int, keep: Iterable[int] = (), most: int = MOST, seed: int = 0) -> NDArray[np.intp]:
    """Return the places, in order, of at most ``most`` of ``n`` rows, drawn at random.

    Args:
        n: rows there are.
        keep: places that are drawn in any case, such as a front; they count.
        most: how many are drawn, unless more are kept.
        seed: of the draw.
    """
    kept = np.unique(np.fromiter(keep, dtype=np.intp))
    if n <= most:
        return np.arange(n, dtype=np.intp)
    rest = np.setdiff1d(np.arange(n, dtype=np.intp), kept)
    count = max(most - len(kept), 0)
    drawn = np.random.default_rng(seed).choice(rest, size=min(count, len(rest)), replace=False)
    return np.sort(np.concatenate([kept, drawn]))


def said(shown: int, of: int, kept: str = "") -> str:
    """Return how many trials are drawn of how many, as a sentence."""
    if shown >= of:
        return f"All {of:,} complete trials."
    also = f", {kept} all" if kept else ""
    return f"{shown:,} of {of:,} complete trials are drawn, at random{also}."


def front_of_two(a: FloatArray, b: FloatArray, ways: tuple[str, str]) -> NDArray[np.bool_]:
    """Return ``(n,)`` bool: rows that none dominates in two scores, by sorting.

    Equal rows are all on the front or none; a row with a NaN is never. What
    :func:`nas.ledger.fronts.pareto_front` returns, for every pair of scores of 10,000 trials.
    """
    x = np.where(ways[0] == "max", a, -a)
    y = np.where(ways[1] == "max", b, -b)
    found = np.zeros(len(x), dtype=bool)
    there = np.flatnonzero(~(np.isnan(x) | np.isnan(y)))
    if len(there) == 0:
        return found
    order = there[np.lexsort((-y[there], -x[there]))]
    xs, ys = x[order], y[order]
    before = np.concatenate([[-np.inf], np.maximum.accumulate(ys)[:-1]])
    on = ys > before
    new = np.concatenate([[True], (xs[1:] != xs[:-1]) | (ys[1:] != ys[:-1])])
    on[0] = True  # the best along x, whatever its y
    found[order] = on[np.flatnonzero(new)][np.cumsum(new) - 1]
    return found
