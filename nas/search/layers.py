"""Non-dominated fronts that grow a row at a time, and how many rows are better than one of them.

A rung asks after every arrival. Sorting all rows into fronts anew would take 0.6 s of 10,000; a row
that comes finds its front by bisection and pushes what it dominates one front down (Li et al. 2017,
"Efficient Nondomination Level Update").
"""

from __future__ import annotations

import bisect

import numpy as np
from numpy.typing import NDArray

from nas.ledger.fronts import crowding, front_ranks
from nas.types import FloatArray


class Layers:
    """Rows by their non-dominated front, with how often each is there; larger is better.

    Args:
        rows: ``(n, k)``, finite.
    """

    def __init__(self, rows: FloatArray) -> None:
        different, counts = np.unique(rows, axis=0, return_counts=True)
        ranks = front_ranks(different) if len(different) else np.zeros(0, dtype=int)
        fronts = range(int(ranks.max(initial=-1)) + 1)
        self._rows = [different[ranks == rank] for rank in fronts]
        self._counts: list[NDArray[np.int_]] = [counts[ranks == rank] for rank in fronts]
        self._sizes = [int(count.sum()) for count in self._counts]

    def better_than(self, row: FloatArray) -> int:
        """Return how many rows are strictly better than ``row``, which is one of them.

        Better is an earlier front, or in its own a larger crowding distance among the different
        rows there.
        """
        rank = self._covering(row) - 1
        order = np.lexsort(self._rows[rank].T[::-1])
        front, counts = self._rows[rank][order], self._counts[rank][order]
        distances = crowding(front)
        mine = distances[(front == row).all(axis=1)]
        return sum(self._sizes[:rank]) + int(counts[distances > mine].sum())

    def add(self, row: FloatArray) -> None:
        """Take one more row."""
        rank = self._covering(row)
        if rank > 0 and (same := (self._rows[rank - 1] == row).all(axis=1)).any():
            self._counts[rank - 1][same] += 1
            self._sizes[rank - 1] += 1
            return
        coming, counts = row[None], np.ones(1, dtype=int)
        while len(coming):
            if rank == len(self._rows):
                self._rows.append(coming[:0])
                self._counts.append(counts[:0])
                self._sizes.append(0)
            front, there = self._rows[rank], self._counts[rank]
            pushed = (coming[:, None] >= front).all(axis=2).any(axis=0)
            self._rows[rank] = np.concatenate([front[~pushed], coming])
            self._counts[rank] = np.concatenate([there[~pushed], counts])
            self._sizes[rank] = int(self._counts[rank].sum())
            coming, counts = front[pushed], there[pushed]
            rank += 1

    def _covering(self, row: FloatArray) -> int:
        """Return how many fronts have a row as good as this one in everything: the first ones."""
        low, high = 0, len(self._rows)
        while low < high:
            middle = (low + high) // 2
            if (self._rows[middle] >= row).all(axis=1).any():
                low = middle + 1
            else:
                high = middle
        return low


class Ranking:
    """The same of rows of one number: no fronts are needed.

    Args:
        rows: ``(n, 1)``, finite.
    """

    def __init__(self, rows: FloatArray) -> None:
        self._sorted: list[float] = sorted(rows[:, 0].tolist())

    def better_than(self, row: FloatArray) -> int:
        """Return how many rows are larger."""
        return len(self._sorted) - bisect.bisect_right(self._sorted, float(row[0]))

    def add(self, row: FloatArray) -> None:
        """Take one more row."""
        bisect.insort(self._sorted, float(row[0]))
