"""The theory of Sutton et al. over a small grid: the table against the theorems, row by row."""

from __future__ import annotations

import math

import numpy as np
import pytest

from launch.papers.sutton import cases as round_cases
from launch.papers.sutton import theory as module
from launch.papers.sutton.theory import Grid, sutton_theory
from metrics.stability.theory.balls import (
    TwoBalls,
    theorem_4,
    theorem_5,
    theorem_6,
    theorem_6_sharper,
    theorem_8,
)
from metrics.stability.theory.half_balls import HalfBalls, theorem_18, theorem_19, theorem_20
from metrics.stability.theory.point import Point, theorem_1

SMALL = Grid(
    n=(2, 30),
    epsilon=(0, 0.1, 0.5, 1.5),
    delta=(0, 0.4, 1, 2),
    concentration=(1.0, 1.5),
    draws=4000,
)


def balls(row):
    return TwoBalls(row.n, row.epsilon, concentration=row.A)


ANEW = {
    ("theorem 1", False): lambda r: theorem_1(Point(r.n, r.epsilon), r.delta),
    ("theorem 4", False): lambda r: theorem_4(balls(r)),
    ("theorem 5", False): lambda r: theorem_5(balls(r), r.delta),
    ("theorem 6", False): lambda r: theorem_6(balls(r), r.delta),
    ("theorem 6", True): lambda r: theorem_6_sharper(balls(r), r.delta),
    ("theorem 8", False): lambda r: theorem_8(TwoBalls(r.n, 0.7, concentration=r.A), r.gamma),
    ("theorem 18", False): lambda r: theorem_18(HalfBalls(r.n, r.epsilon), r.delta),
    ("theorem 19", False): lambda r: theorem_19(HalfBalls(r.n, r.epsilon), r.delta),
    ("theorem 20", True): lambda r: theorem_20(HalfBalls(r.n, r.epsilon), r.delta),
}


@pytest.fixture(scope="module")
def view():
    """Return the view of a small grid, through the function that a reproduction calls."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "Grid", lambda: SMALL)
        patch.setattr(round_cases, "DRAWS", 2000)
        return sutton_theory([], None)


def test_every_row_is_what_its_theorem_says(view):
    seen = set()
    for row in view.table.itertuples():
        key = (row.theorem, row.ours)
        expected = ANEW[key](row)
        found = (row.side, row.bound, row.exact, row.vacuous)
        assert found == (expected.side, expected.bound, expected.exact, expected.vacuous), row
        seen.add(key)
    assert seen == set(ANEW)
    parameters = ["theorem", "ours", "n", "epsilon", "delta", "gamma", "A"]
    assert not view.table.duplicated(parameters).any()


def test_no_bound_is_on_the_wrong_side_and_the_draws_agree(view):
    table = view.table
    least = table["side"] == "at least"
    wrong = np.where(least, table["bound"] - table["exact"], table["exact"] - table["bound"])
    assert (wrong <= 1e-12).all()
    assert table["monte_carlo"].between(0, 1).all()
    assert (table["draws"] == 4000).all()
    spread = np.sqrt(table["exact"] * (1 - table["exact"]) / 4000).clip(1 / 4000)
    off = (table["monte_carlo"] - table["exact"]).abs() / spread
    assert table["sigmas"].to_numpy() == pytest.approx(off.to_numpy())
    assert table["sigmas"].max() < 5
    assert table["exact"].between(0.01, 0.99).sum() > 60


def test_lines_say_what_the_table_holds(view):
    text = "\n".join(view.lines)
    assert "wrong side of the exact probability: 0; draws beyond 5 standard errors: 0." in text
    assert f"{len(view.table)} statements at 64 parameter sets, 4000 draws each" in text
    sixes = view.table[(view.table["theorem"] == "theorem 6") & ~view.table["ours"]]
    line = next(line for line in view.lines if line.startswith("  theorem 6  "))
    assert line.split()[2:4] == [str(len(sixes)), str(sixes["vacuous"].sum())]
    gaps = (sixes["bound"] - sixes["exact"])[~sixes["vacuous"]]
    assert float(line.split()[4]) == pytest.approx(gaps.median(), rel=0.05)
    assert float(line.split()[5]) == pytest.approx(gaps.max(), rel=0.05)
    for digits in (
        ("n = 1000, ε = 0.1 ", "0.99924", "≥ 0.99671"),
        ("n = 10, γ = 0.3", "0.76348", "≥ 0.30667"),
        ("n → ∞, δ = 2", "0.35242", "≥ 0.15324"),
    ):
        assert any(all(d in line for d in digits) for line in view.lines), digits


def test_the_full_grid_has_2000_sets():
    assert Grid().size >= 2000
    assert {1, 3072} <= set(Grid().n)


def test_the_picture_has_both_panels(view):
    left, right = view.figure.axes
    exact = dict(zip(*left.lines[0].get_data(), strict=True))
    assert exact[1] == pytest.approx(theorem_4(TwoBalls(1, 0.1)).exact)
    dotted = next(line for line in right.lines if line.get_linestyle() == ":")
    assert dotted.get_ydata() == pytest.approx(np.arctan(dotted.get_xdata()) / math.pi)
