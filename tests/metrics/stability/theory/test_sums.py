"""Quadrature against plain sums over 60,000 points and closed forms; draws against their law."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

from metrics.stability.theory.caps import cap_fraction, coordinate_density
from metrics.stability.theory.coordinates import coordinates, vectors
from metrics.stability.theory.numerics import highest, integral
from metrics.stability.theory.sums import half_beyond, sum_beyond

CASES = [
    (n, distance, scale)
    for n in (1, 2, 3, 10, 99, 1000)
    for distance, scale in ((0.0, 1.0), (0.1, 0.02), (0.1, 1.0), (0.3, 0.4), (0.6, 7.0), (1.5, 2.0))
]
WIDE = [(100_000, 0.01, 1.0), (100_000, 0.01, 0.1), (100_000, 0.05, 10.0), (1000, 0.3, 0.02)]


def middles(low, high, count=60_000):
    step = (high - low) / count
    return low + step * (np.arange(count) + 0.5), step


def by_sum(n, distance, scale):
    u, step = middles(-1, 1)
    return float(np.sum(coordinate_density(n, u) * cap_fraction(n, (distance - u) / scale)) * step)


def half_by_sum(n, distance, scale):
    root, step = middles(0, 1)  # most points near u = 0, whence the caps fall off steeply
    u = root**2
    values = coordinate_density(n, u) * cap_fraction(n, (distance + u) / scale)
    return float(2 * np.sum(values * 2 * root) * step)


@pytest.mark.parametrize(("n", "distance", "scale"), CASES[::2] + WIDE)
def test_sums_by_brute_force(n, distance, scale):
    expected = by_sum(n, distance, scale)
    rel = 1e-9 if n >= 99 else 2e-6  # smooth at the ends, where a plain sum is as good
    assert sum_beyond(n, distance, scale) == pytest.approx(expected, rel=rel, abs=0)
    assert sum_beyond(n, -distance, scale) == pytest.approx(1 - expected, abs=2e-6)


@pytest.mark.parametrize(("n", "distance", "scale"), CASES[1::2] + WIDE)
def test_half_balls_by_brute_force(n, distance, scale):
    expected = half_by_sum(n, distance, scale)
    assert half_beyond(n, distance, scale) == pytest.approx(expected, rel=2e-5, abs=1e-300)


def test_one_dimension_in_closed_form():
    for distance in np.linspace(0, 2, 9):
        expected = (2 - distance) ** 2 / 8
        assert sum_beyond(1, distance, 1.0) == pytest.approx(expected, rel=1e-12, abs=1e-15)
    # v beyond (distance + u)/scale, u uniform in [0, 1]
    assert half_beyond(1, 0.25, 1.0) == pytest.approx(0.75**2 / 4, rel=1e-12)
    assert half_beyond(1, 0.5, 1.2) == pytest.approx(0.7**2 / 4.8, rel=1e-12)  # up to u = 0.7
    assert half_beyond(1, 0.5, 4.0) == pytest.approx((3.5**2 - 2.5**2) / 16, rel=1e-12)


def test_limits():
    assert sum_beyond(7, 0.3, 0.0) == cap_fraction(7, 0.3)
    assert sum_beyond(7, 0.3, 1e-9) == pytest.approx(float(cap_fraction(7, 0.3)), rel=1e-8)
    assert sum_beyond(7, 0.0, 3.0) == pytest.approx(0.5, rel=1e-12)
    assert sum_beyond(7, 2.5, 1.5) == 0 == sum_beyond(7, 9.0, 1.5)
    assert sum_beyond(7, -9.0, 1.5) == 1
    assert half_beyond(7, 0.3, 0.3) == half_beyond(7, 0.3, 0.0) == half_beyond(7, 0.0, 0.0) == 0
    spread = math.sqrt((1 + 0.25) / 100_000)  # of a normal, which large n come near
    expected = math.erfc(0.01 / spread / math.sqrt(2)) / 2
    assert sum_beyond(100_000, 0.01, 0.5) == pytest.approx(expected, rel=1e-3)


def test_an_integral_of_nothing_is_nothing():
    assert integral(np.cos, 1.0, 1.0, 0.1) == integral(np.cos, 2.0, 1.0, 0.1) == 0
    assert integral(np.cos, 0.0, 1.0, 0.1) == pytest.approx(math.sin(1), rel=1e-13)


def test_the_highest_point_is_found_to_the_last_digits():
    assert highest(lambda x: -np.square(x - 0.3), -1.0, 7.0) == pytest.approx(0, abs=1e-12)
    assert highest(np.exp, 0.0, 1.0) == math.e
    assert highest(lambda x: -x, 2.0, 2.0) == -2


@pytest.mark.parametrize("n", [1, 2, 3, 50, 3072])
def test_coordinates_are_distributed_like_those_of_the_ball(n):
    """Kolmogorov-Smirnov: the largest deviation of 40,000 draws, times 200, is below 2.2 but for
    one seed in 8,000."""
    drawn = np.sort(coordinates(n, (40_000,), np.random.default_rng(n)))
    steps = np.arange(40_001) / 40_000
    below = 1 - cap_fraction(n, drawn)
    largest = np.maximum(np.abs(steps[1:] - below), np.abs(steps[:-1] - below)).max()
    assert 200 * largest < 2.2


@pytest.mark.parametrize("n", [1, 2, 30])
def test_vectors_are_uniform_in_the_ball(n):
    drawn = vectors(n, 40_000, torch.Generator().manual_seed(n))
    length = drawn.norm(dim=1)
    assert drawn.shape == (40_000, n)
    assert drawn.dtype == torch.float64
    assert length.max() <= 1
    assert length.mean().item() == pytest.approx(n / (n + 1), abs=5 / 200 / (n + 1))
    for i in (0, n - 1):
        below = 1 - cap_fraction(n, np.sort(drawn[:, i].numpy()))
        assert 200 * np.abs(np.arange(40_000) / 40_000 - below).max() < 2.3


def test_the_generator_is_what_counts():
    first = coordinates(5, (2, 3), np.random.default_rng(1))
    assert first.shape == (2, 3)
    assert (first == coordinates(5, (2, 3), np.random.default_rng(1))).all()
    assert (first != coordinates(5, (2, 3), np.random.default_rng(2))).all()
    generator = torch.Generator().manual_seed(1)
    assert not torch.equal(vectors(2, 3, generator), vectors(2, 3, generator))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sum_beyond(0, 0.1, 1.0), "n: expected integers >= 1, got 0"),
        (lambda: sum_beyond(2, 0.1, -1.0), "scale: expected a finite number >= 0, got -1.0"),
        (lambda: sum_beyond(2, math.nan, 1.0), "c: expected numbers, got NaN in nan"),
        (lambda: half_beyond(2, -0.1, 1.0), "distance: expected a finite number >= 0, got -0.1"),
        (
            lambda: coordinates(0, (3,), np.random.default_rng(0)),
            "n: expected an integer >= 1, got 0",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()
