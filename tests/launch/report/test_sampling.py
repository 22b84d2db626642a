"""Fronts of two scores, and draws that keep what must be seen."""

from __future__ import annotations

import numpy as np
import pytest

from launch.report.plots import Axis
from launch.report.sampling import few, front_of_two, said
from launch.report.scales import Scale, span, ticks, written


def by_hand(a, b, ways):
    x = a if ways[0] == "max" else -a
    y = b if ways[1] == "max" else -b
    return [
        not (np.isnan(x[i]) or np.isnan(y[i]))
        and not any(x[j] >= x[i] and y[j] >= y[i] and (x[j], y[j]) != (x[i], y[i])
                    for j in range(len(x)))
        for i in range(len(x))
    ]  # fmt: skip


@pytest.mark.parametrize("ways", [("max", "max"), ("max", "min"), ("min", "max"), ("min", "min")])
def test_the_front_of_two_scores_is_that_of_brute_force(ways):
    rng = np.random.default_rng(0)
    for size in (0, 1, 2, 5, 30, 60):
        for ties in (3, 8, 1000):
            a, b = rng.integers(0, ties, (2, size)).astype(float)
            a[rng.random(size) < 0.1] = np.nan
            b[rng.random(size) < 0.1] = np.nan
            assert front_of_two(a, b, ways).tolist() == by_hand(a, b, ways)


def test_few_keeps_what_it_is_told_to():
    drawn = few(1000, keep=[0, 7, 999], most=50)
    assert len(drawn) == 50
    assert {0, 7, 999} <= set(drawn.tolist())
    assert sorted(set(drawn.tolist())) == drawn.tolist()
    assert few(10, most=50).tolist() == list(range(10))
    assert len(few(1000, keep=range(60), most=50)) == 60
    assert not np.array_equal(few(1000, most=50), few(1000, most=50, seed=1))


def test_what_is_drawn_is_said():
    assert said(10, 10) == "All 10 complete trials."
    assert said(2000, 9542, "the front") == (
        "2,000 of 9,542 complete trials are drawn, at random, the front all."
    )


@pytest.mark.parametrize(
    ("low", "high", "log"),
    [
        (0.0, 1.0, False),
        (0.83, 0.84, False),
        (-5.0, 1e6, False),
        (1.0, 1e6, True),
        (3.0, 7.0, True),
    ],
)
def test_ticks_are_round_and_inside(low, high, log):
    found = ticks(low, high, log=log)
    assert 2 <= len(found) <= 12
    assert all(low - 1e-9 <= v <= high * (1 + 1e-9) for v in found)
    assert found == sorted(found)
    assert all(float(f"{v:.2g}") == pytest.approx(v) or not log for v in found)


def test_scales_and_spans():
    scale = Scale(1, 100, 0, 200, log=True)
    assert [scale(1), scale(10), scale(100)] == pytest.approx([0, 100, 200])
    assert span([], Axis("a")) == pytest.approx((0.95, 1.05))
    low, high = span([1.0, None, float("nan"), 3.0], Axis("a"))
    assert (low < 1, high > 3) == (True, True)
    assert span([-1.0, 10.0], Axis("a", log=True))[0] > 0


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.25, "0.25"), (1e6, "1 M"), (25_000.0, "25 k"), (1e-5, "1e-5")],
)
def test_ticks_are_written_short(value, text):
    assert written(value) == text
