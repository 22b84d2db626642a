"""Shares of caps against closed forms, arithmetic of 40 digits, and the paper's bound."""

from __future__ import annotations

import math
import re

import mpmath
import numpy as np
import pytest

from metrics.stability.theory.caps import (
    cap_bound,
    cap_fraction,
    coordinate_density,
    linear_prediction,
)
from metrics.stability.theory.numerics import integral

DIMENSIONS = (1, 2, 3, 10, 100, 3072, 150528)
DISTANCES = (1e-9, 1e-4, 0.003, 0.0933, 0.049999, 0.05, 0.3, 0.5, 0.9, 0.99, 1 - 1e-9)


def by_40_digits(n, c):
    with mpmath.workdps(40):
        c = mpmath.mpf(c)
        half = mpmath.mpf(1) / 2
        return float(mpmath.betainc((n + 1) * half, half, 0, 1 - c * c, regularized=True) / 2)


@pytest.mark.parametrize(
    ("n", "share"),
    [
        (1, lambda c: (1 - c) / 2),
        (2, lambda c: (np.arccos(c) - c * np.sqrt(1 - c * c)) / np.pi),
        (3, lambda c: (2 - 3 * c + c**3) / 4),
    ],
)
def test_case_13_closed_forms(n, share):
    c = np.linspace(-1, 0.97, 1001)
    assert cap_fraction(n, c) == pytest.approx(share(c), rel=1e-10, abs=0)
    near = 1 - np.array([1e-3, 1e-6, 1e-9])  # where (2 - 3c + c³)/4 cancels: (1-c)² (2+c)/4
    assert cap_fraction(1, near) == pytest.approx((1 - near) / 2, rel=1e-10, abs=0)
    assert cap_fraction(3, near) == pytest.approx((1 - near) ** 2 * (2 + near) / 4, rel=1e-10)


@pytest.mark.parametrize("n", DIMENSIONS)
def test_tiny_shares_keep_their_digits(n):
    distances = [c for c in DISTANCES if cap_bound(n, c) > 1e-290]
    expected = [by_40_digits(n, c) for c in distances]
    assert cap_fraction(n, distances) == pytest.approx(expected, rel=1e-10, abs=0)
    assert len(distances) >= 4
    assert n < 3072 or min(expected) < 1e-60


def test_both_sides_and_beyond():
    assert cap_fraction(5, [-math.inf, -2, -1, 1, 2, math.inf]).tolist() == [1, 1, 1, 0, 0, 0]
    assert cap_fraction([1, 2, 3], 0.0).tolist() == [0.5, 0.5, 0.5]
    c = np.linspace(0, 1, 11)
    assert cap_fraction(7, -c) == pytest.approx(1 - cap_fraction(7, c), abs=1e-15)
    assert cap_fraction(np.array([[2], [3]]), c).shape == (2, 11)
    assert cap_fraction(np.array([[2], [3]]), c)[1] == pytest.approx(cap_fraction(3, c), abs=0)


@pytest.mark.parametrize("n", DIMENSIONS)
def test_lemma_23_bounds_every_cap_up_to_a_hemisphere(n):
    c = np.concatenate([np.linspace(0, 1, 2001), np.linspace(0, 0.02, 500)])
    share, bound = cap_fraction(n, c), cap_bound(n, c)
    assert (share <= bound * (1 + 1e-12)).all()
    assert bound[0] == share[0] == 0.5
    assert bound == pytest.approx(0.5 * (1 - c * c) ** (n / 2), rel=1e-9, abs=1e-300)
    assert cap_bound(n, 1.0) == 0


def test_concentration_multiplies_by_its_nth_power():
    assert cap_bound(10, 0.3, 1.5) == pytest.approx(1.5**10 * cap_bound(10, 0.3))
    assert cap_bound(10_000, 0.3, 3.0) == math.inf
    assert cap_bound(10_000, 1.0, 3.0) == 0


@pytest.mark.parametrize("n", [1, 2, 3, 10, 1000, 100_000])
def test_density(n):
    def moment(power):
        return integral(lambda u: coordinate_density(n, u) * u**power, -1.0, 1.0, 1 / math.sqrt(n))

    assert moment(0) == pytest.approx(1, rel=1e-10)
    assert moment(2) == pytest.approx(1 / (n + 2), rel=1e-10)
    assert coordinate_density(n, [-1.5, 1.5]).tolist() == [0, 0]
    c = 1.3 / math.sqrt(n + 1)
    h = 1e-4 * c
    slope = (cap_fraction(n, c - h) - cap_fraction(n, c + h)) / (2 * h)
    assert coordinate_density(n, c) == pytest.approx(float(slope), rel=1e-7)


def test_linear_prediction():
    found = linear_prediction(3072, [0, 0.5, 1, 5, 10], 2000)
    assert found[:3].tolist() == [0, 0, 0]
    assert found[3] == pytest.approx(4.1e-26, rel=0.01)
    assert found[4] == pytest.approx(2.745e-5, rel=1e-3)
    assert linear_prediction(150528, 10, 2000) == 0
    assert linear_prediction(150528, 100, 2000) == pytest.approx(
        1 - (1 - by_40_digits(150528, 0.01)) ** 2000, rel=1e-9
    )
    one = cap_fraction(3072, 0.2)
    assert linear_prediction(3072, 5, 1) == pytest.approx(one, rel=1e-12, abs=0)
    assert linear_prediction(3, math.inf, 2) == 0.75


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cap_fraction(0, 0.5), "n: expected integers >= 1, got 0"),
        (lambda: cap_fraction(2.0, 0.5), "n: expected integers >= 1, got 2.0"),
        (lambda: cap_fraction(True, 0.5), "n: expected integers >= 1, got True"),
        (lambda: cap_fraction(2, math.nan), "c: expected numbers, got NaN in nan"),
        (lambda: cap_bound(2, -0.1), "c: expected 0 <= c <= 1, up to a hemisphere, got -0.1"),
        (lambda: cap_bound(2, 1.1), "c: expected 0 <= c <= 1, up to a hemisphere, got 1.1"),
        (lambda: cap_bound(2, 0.1, 0.9), "concentration: expected a number >= 1, got 0.9"),
        (lambda: coordinate_density(0, 0.1), "n: expected integers >= 1, got 0"),
        (lambda: coordinate_density(2, math.nan), "u: expected numbers, got NaN in nan"),
        (lambda: linear_prediction(2, -1, 5), "delta: expected lengths >= 0, got -1"),
        (lambda: linear_prediction(2, 1, 0), "draws: expected an integer >= 1, got 0"),
        (lambda: linear_prediction(2, 1, 1.5), "draws: expected an integer >= 1, got 1.5"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()
