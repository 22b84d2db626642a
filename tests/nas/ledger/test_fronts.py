"""Fronts against brute force, with ties, infinities and rows of every number of objectives."""

from __future__ import annotations

import numpy as np
import pytest

from nas.ledger.fronts import Front, front_ranks, pareto_front


def dominates(a, b):
    return (a >= b).all() and (a > b).any()


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
@pytest.mark.parametrize("levels", [3, 1000])
def test_ranks_are_fronts_peeled_one_by_one(objectives, levels):
    rng = np.random.default_rng(levels + objectives)
    values = rng.integers(levels, size=(70, objectives)).astype(float)
    values[3], values[4, 0] = values[5], np.inf
    left, rank = set(range(70)), {}
    front = 0
    while left:
        best = {i for i in left if not any(dominates(values[j], values[i]) for j in left)}
        rank.update(dict.fromkeys(best, front))
        left, front = left - best, front + 1
    expected = [rank[i] for i in range(70)]
    assert front_ranks(values).tolist() == expected
    on_front = pareto_front(values, ["max"] * objectives)
    assert on_front.tolist() == [r == 0 for r in expected]
    assert pareto_front(-values, ["min"] * objectives).tolist() == on_front.tolist()


def test_a_row_with_a_nan_is_on_no_front_and_keeps_none_off():
    values = [[1.0, np.nan], [0.0, 0.0], [np.nan, np.nan]]
    assert pareto_front(values, ["max", "max"]).tolist() == [False, True, False]
    assert pareto_front(np.empty((0, 2)), ["max", "min"]).tolist() == []


def test_a_front_forgets_what_a_newcomer_covers():
    front = Front(2)
    for i in range(40):
        front.add(np.array([i, -i]))
    assert len(front.rows) == 40
    assert front.covers(np.array([3, -4]))
    assert not front.covers(np.array([3, -2]))
    front.add(np.array([20, 0]))
    assert len(front.rows) == 40 - 20
    assert front.rows[-1].tolist() == [20, 0]
