"""Acceptance cases 1 to 12: uniform balls, the exact probability and the bound, digit by digit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from metrics.stability import theory
from metrics.stability.theory.balls import TwoBalls, theorem_4, theorem_5, theorem_6, theorem_8
from metrics.stability.theory.half_balls import (
    HalfBalls,
    theorem_18,
    theorem_19,
    theorem_20,
    theorem_20_limit,
)
from metrics.stability.theory.point import Point, theorem_1

CASES = {
    "1, n = 10": (lambda: theorem_4(TwoBalls(10, 0.1)), "0.62743", "0.52450"),
    "1, n = 100": (lambda: theorem_4(TwoBalls(100, 0.1)), "0.84256", "0.69750"),
    "1, n = 1000": (lambda: theorem_4(TwoBalls(1000, 0.1)), "0.99924", "0.99671"),
    "2, n = 10": (lambda: theorem_4(TwoBalls(10, 0.3)), "0.84034", "0.68798"),
    "2, n = 100": (lambda: theorem_4(TwoBalls(100, 0.3)), "0.99896", "0.99552"),
    "3, n = 10": (lambda: theorem_5(TwoBalls(10, 0.1), 0.4), "0.84034", "0.68798"),
    "3, n = 100": (lambda: theorem_5(TwoBalls(100, 0.1), 0.4), "0.99896", "0.99552"),
    "4, n = 10": (lambda: theorem_1(Point(10, 0.1), 1), "0.373", "0.475"),
    "4, n = 100": (lambda: theorem_1(Point(100, 0.1), 1), "0.157", "0.303"),
    "4, n = 1000": (lambda: theorem_1(Point(1000, 0.1), 1), "0.000760", "0.00329"),
    "5, n = 10": (lambda: theorem_6(TwoBalls(10, 0.1), 1), "0.406", "0.988"),
    "5, n = 100": (lambda: theorem_6(TwoBalls(100, 0.1), 1), "0.238", "0.882"),
    "5, n = 1000": (lambda: theorem_6(TwoBalls(1000, 0.1), 1), "0.0126", "0.286"),
    "6": (lambda: theorem_6(TwoBalls(100, 0.3), 1), "0.0159", "0.321"),
    "7, n = 10": (lambda: theorem_8(TwoBalls(10, 0.1), 0.3), "0.76348", "0.30667"),
    "7, n = 100": (lambda: theorem_8(TwoBalls(100, 0.1), 0.3), "0.98409", "0.70517"),
    "8, n = 10": (lambda: theorem_18(HalfBalls(10, 0.1), 0.4), "0.68068", "0.37597"),
    "8, n = 100": (lambda: theorem_18(HalfBalls(100, 0.1), 0.4), "0.99792", "0.99104"),
    "9, n = 10": (lambda: theorem_19(HalfBalls(10, 0.1), 1), "0.164", "0.475"),
    "9, n = 100": (lambda: theorem_19(HalfBalls(100, 0.1), 1), "0.0564", "0.303"),
    "9, n = 1000": (lambda: theorem_19(HalfBalls(1000, 0.1), 1), "0.000154", "0.00329"),
    "10, n = 10": (lambda: theorem_20(HalfBalls(10, 0), 1), "0.25", "0.06005"),
    "10, limit": (lambda: theorem_20_limit(1), "0.25", "0.06243"),
    "11, n = 10": (lambda: theorem_20(HalfBalls(10, 0), 0.5), "0.14390", "0.01746"),
    "11, n = 100": (lambda: theorem_20(HalfBalls(100, 0), 0.5), "0.14720", "0.01889"),
    "11, limit": (lambda: theorem_20_limit(0.5), "0.14758", "0.01907"),
    "12, n = 10": (lambda: theorem_20(HalfBalls(10, 0), 2), "0.35610", "0.15683"),
    "12, n = 100": (lambda: theorem_20(HalfBalls(100, 0), 2), "0.35280", "0.15356"),
    "12, limit": (lambda: theorem_20_limit(2), "0.35242", "0.15324"),
}


@pytest.mark.parametrize("case", CASES)
def test_case(case):
    make, exact, bound = CASES[case]
    found = make()
    for digits, value in ((exact, found.exact), (bound, found.bound)):
        places = len(digits.partition(".")[2])
        assert value == pytest.approx(float(digits), abs=0.5000001 * 10**-places), case
    assert found.holds
    assert not found.vacuous


@pytest.mark.parametrize("n", [1, 2, 3, 10, 1000, 3072, 100_000])
def test_case_10_a_quarter_in_every_dimension(n):
    assert theorem_20(HalfBalls(n, 0), 1).exact == pytest.approx(0.25, rel=1e-9)


def test_what_the_documentation_names_is_there():
    """docs/stability.md names them as names of ``metrics.stability.theory``."""
    page = (Path(__file__).parents[4] / "docs" / "stability.md").read_text()
    section = page.partition("## Theory")[2].partition("## ")[0]
    pattern = r"`(TwoBalls|HalfBalls|Point|Statement|theorem_\d+|corollary_\d+)`"
    names = set(re.findall(pattern, section))
    assert {"TwoBalls", "HalfBalls", "Point", "theorem_4", "corollary_10"} <= names
    assert all(hasattr(theory, name) for name in names)
