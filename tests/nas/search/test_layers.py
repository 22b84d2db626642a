"""Fronts that grow a row at a time against fronts sorted anew."""

from __future__ import annotations

import numpy as np
import pytest

from nas.ledger.fronts import crowding, front_ranks
from nas.search import layers
from nas.search.layers import Layers, Ranking
from nas.search.rungs import Rungs


def counted(rows, mine):
    """Count the rows better than ``mine``, sorted anew: what a rung did before it remembered."""
    different, counts = np.unique(rows, axis=0, return_counts=True)
    (me,) = np.flatnonzero((different == mine).all(axis=1))
    ranks = front_ranks(different)
    beside = np.flatnonzero(ranks == ranks[me])
    distances = crowding(different[beside])
    roomier = beside[distances > distances[beside == me]]
    return int(counts[ranks < ranks[me]].sum() + counts[roomier].sum())


@pytest.mark.parametrize("columns", [1, 2, 3])
@pytest.mark.parametrize("levels", [3, 12, 10**6])
@pytest.mark.parametrize("already", [0, 40])
def test_a_row_that_comes_is_placed_as_if_all_were_sorted_anew(columns, levels, already):
    rng = np.random.default_rng([columns, levels])
    rows = rng.integers(levels, size=(160, columns)).astype(float)
    grown = (Ranking if columns == 1 else Layers)(rows[:already])
    for n in range(already, len(rows)):
        grown.add(rows[n])
        assert grown.better_than(rows[n]) == counted(rows[: n + 1], rows[n])
    for row in rows:
        assert grown.better_than(row) == counted(rows, row)


def test_an_arrival_at_a_rung_sorts_nothing_anew(monkeypatch):
    sorts = []
    monkeypatch.setattr(layers, "front_ranks", lambda rows: sorts.append(1) or front_ranks(rows))
    rng = np.random.default_rng(0)
    rungs = Rungs((1,), {"a": "max", "b": "max"}, 3)

    def arrive(number):
        return rungs.arrive(number, 1, dict(zip("ab", rng.random(2), strict=True)), 9)

    for number in range(50):
        arrive(number)
    assert len(sorts) == 1
    rungs.forget(99)  # was never there
    arrive(50)
    assert len(sorts) == 1
    rungs.forget(7)
    arrive(51)
    assert len(sorts) == 2
    arrive(51)  # begun again
    assert len(sorts) == 3
