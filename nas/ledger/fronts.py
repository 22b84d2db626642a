"""Pareto fronts: which rows no other row beats, ranks of fronts, crowding and hypervolume."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nas.types import FloatArray


class Front:
    """Rows of which none is as good as another in everything; larger numbers are better.

    Args:
        columns: numbers in a row.
    """

    def __init__(self, columns: int) -> None:
        self._rows = np.empty((16, columns))
        self._count = 0

    @property
    def rows(self) -> FloatArray:
        """``(n, columns)``, in the order in which they came."""
        return self._rows[: self._count]

    def covers(self, row: FloatArray) -> bool:
        """Whether some row is as good as this one in everything."""
        return bool((self.rows >= row).all(axis=1).any())

    def add(self, row: FloatArray) -> None:
        """Take a row that is not covered; those that it covers go."""
        kept = self.rows[~(row >= self.rows).all(axis=1)]
        if len(kept) == len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        self._rows[: len(kept)], self._rows[len(kept)] = kept, row
        self._count = len(kept) + 1


def pareto_front(values: ArrayLike, directions: Sequence[str]) -> NDArray[np.bool_]:
    """Return ``(n,)`` bool: rows that no other row dominates; a row with a NaN is never in.

    Args:
        values: ``(n, k)``, one row a trial, one column an objective.
        directions: ``max`` or ``min`` for each column.

    Raises:
        ValueError: the shape does not fit the directions, or an unknown direction.
    """
    v = np.asarray(values, dtype=float)
    if v.ndim != 2 or v.shape[1] != len(directions):
        raise ValueError(f"expected (n, {len(directions)}) values, got {v.shape}")
    if unknown := set(directions) - {"max", "min"}:
        raise ValueError(f"expected directions max or min, got {sorted(unknown)}")
    v = v * np.array([1.0 if d == "max" else -1.0 for d in directions])
    valid = np.flatnonzero(~np.isnan(v).any(axis=1))
    different, which = _best_first(v[valid])
    front, inside = Front(v.shape[1]), np.zeros(len(different), dtype=bool)
    for place, row in enumerate(different):
        if not front.covers(row):
            front.add(row)
            inside[place] = True
    found: NDArray[np.bool_] = np.zeros(len(v), dtype=bool)
    found[valid] = inside[which]
    return found


def hypervolume(points: ArrayLike) -> float:
    """Return the volume that the points dominate above the origin, larger coordinates better.

    By slicing along the last coordinate (While et al. 2006): exact, for a few objectives.

    Args:
        points: ``(n, k)``; a coordinate below 0 counts as 0.
    """
    p = np.asarray(points, dtype=float).clip(min=0.0)
    if len(p) == 0:
        return 0.0
    if p.shape[1] == 1:
        return float(p.max())
    p = p[np.argsort(-p[:, -1], kind="stable")]
    below = np.append(p[1:, -1], 0.0)
    if p.shape[1] == 2:
        return float(np.maximum.accumulate(p[:, 0]) @ (p[:, 1] - below))
    return sum(
        hypervolume(p[: i + 1, :-1]) * float(p[i, -1] - low)
        for i, low in enumerate(below)
        if p[i, -1] > low
    )


def front_ranks(values: FloatArray) -> NDArray[np.int_]:
    """Return ``(n,)``: 0 for the non-dominated rows, 1 for those of the rest, and so on.

    A row dominated by one of some front is dominated by one of every earlier front, so its own is
    found by bisection (Zhang et al. 2015, ENS).

    Args:
        values: ``(n, k)``, larger is better, all finite.
    """
    different, which = _best_first(values)
    fronts: list[Front] = []
    ranks = np.empty(len(different), dtype=int)
    for place, row in enumerate(different):
        low, rank = 0, len(fronts)
        while low < rank:
            middle = (low + rank) // 2
            if fronts[middle].covers(row):
                low = middle + 1
            else:
                rank = middle
        if rank == len(fronts):
            fronts.append(Front(values.shape[1]))
        fronts[rank].add(row)
        ranks[place] = rank
    found: NDArray[np.int_] = ranks[which]
    return found


def _best_first(values: FloatArray) -> tuple[FloatArray, NDArray[np.intp]]:
    """Return the different rows so that none dominates one before it, and where each row is."""
    different, which = np.unique(values, axis=0, return_inverse=True)
    return different[::-1], len(different) - 1 - which.reshape(-1)


def crowding(values: FloatArray) -> FloatArray:
    """Return ``(n,)`` crowding distances of the different rows of a front (Deb et al. 2002).

    The span between a row's neighbours, in units of the front's, summed over the columns; infinite
    at both ends of a column.

    Args:
        values: ``(n, k)``, finite.
    """
    distances = np.zeros(len(values))
    for column in values.T:
        order = np.argsort(column, kind="stable")
        span = column[order[-1]] - column[order[0]]
        if span > 0:
            distances[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
            distances[(column == column.min()) | (column == column.max())] = math.inf
    return distances.round(12)  # equal gaps are equal, whatever the order of the sum
