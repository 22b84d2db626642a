import math

import numpy as np
import pytest
import torch

from metrics.universality.power_law import fit_counts, fit_sample

SHAPES = {
    # u = A x^B as a function of the share, for the ways in which an error comes to its plateau
    "sharp": lambda share: share,
    "exponential": lambda share: -np.log1p(-share),
    "hyperbolic": lambda share: share / (1 - share),
}
PLATEAU = 0.9


def first_epsilons(exponent, shape, total, rng):
    """Return the epsilons at which images break whose error is a power law with a plateau."""
    shares = rng.random(total)
    shares = shares[shares < PLATEAU] / PLATEAU
    return SHAPES[shape](shares) ** (1 / exponent)


def counted(values, edges):
    return np.diff(np.searchsorted(np.sort(values), edges, side="right"), prepend=0).tolist()


@pytest.mark.parametrize("shape", SHAPES)
def test_planted_exponents_lie_within_their_intervals_95_times_of_100(shape):
    rng = np.random.default_rng(2017)
    inside = []
    for exponent in (0.5, 1.0, 1.7, 3.0):
        edges = np.geomspace(1e-4 ** (1 / exponent), 3 ** (1 / exponent), 25).tolist()
        for _ in range(100):
            values = first_epsilons(exponent, shape, 4000, rng)
            law = fit_counts(edges, counted(values, edges), 4000, plateau=PLATEAU)
            inside.append(law.interval[0] <= exponent <= law.interval[1])
    # Of 400 fits 380 are expected; 367 or fewer come about once in 500 times.
    assert sum(inside) >= 368


def test_a_straight_line_through_a_saturating_curve_is_off_where_the_law_is_not():
    rng = np.random.default_rng(0)
    edges = np.geomspace(1e-3, 3, 25).tolist()
    values = first_epsilons(1.0, "hyperbolic", 10**6, rng)
    law = fit_counts(edges, counted(values, edges), 10**6, plateau=PLATEAU)
    assert law.exponent == pytest.approx(1, abs=0.02)
    assert law.line < 0.97


def test_amplitude_and_line_of_an_exact_power_law():
    edges = np.geomspace(0.01, 1, 30)
    counts = np.diff(np.round(3e5 * 0.2 * edges**1.5), prepend=0).astype(int)
    law = fit_counts(edges.tolist(), counts.tolist(), 3 * 10**5)
    assert law.exponent == pytest.approx(1.5, abs=0.01)
    assert law.line == pytest.approx(1.5, abs=0.01)
    assert law.amplitude == pytest.approx(0.2, rel=0.02)
    assert law(0.04) == pytest.approx(0.2 * 0.04**1.5, rel=0.05)
    assert law.bend == pytest.approx(0, abs=0.03)
    assert law.events == round(3e5 * 0.2)


def test_the_range_ends_at_a_third_of_the_plateau():
    edges = np.linspace(0.01, 1, 100)
    counts = np.full(100, 60)  # 6,000 of 10,000
    law = fit_counts(edges.tolist(), counts.tolist(), 10_000, plateau=0.6)
    assert law.high == pytest.approx(0.33)
    assert law.events == 33 * 60


def test_a_step_is_no_power_law_and_says_so():
    edges = np.geomspace(0.001, 1, 40).tolist()
    values = np.concatenate([np.full(500, 0.02), np.full(500, 0.3)])
    law = fit_counts(edges, counted(values, edges), 2000)
    assert math.isnan(law.exponent)  # two cells hold everything
    parts = [np.geomspace(0.001, 0.01, 300), np.geomspace(0.1, 0.12, 300)]
    assert fit_counts(edges, counted(np.concatenate(parts), edges), 2000).high < 0.05


def test_too_little_to_fit_is_nan():
    law = fit_counts([0.1, 0.2, 0.3], [3, 4, 5], 1000)
    assert math.isnan(law.exponent)
    assert math.isnan(law.interval[0])
    assert law.events == 0
    assert math.isnan(fit_sample(torch.zeros(100)).exponent)
    assert math.isnan(fit_sample(torch.zeros(0)).exponent)


@pytest.mark.parametrize(("rank", "expected"), [(2, 1.0), (3, 2.0), (4, 3.0)])
def test_density_exponents_of_uniform_order_statistics(rank, expected):
    """The difference between the largest and the j-th of ten is Beta(j - 1, 12 - j)."""
    rng = np.random.default_rng(rank)
    inside = 0
    for _ in range(20):
        law = fit_sample(rng.beta(rank - 1, 12 - rank, 20_000))
        inside += law.interval[0] <= expected <= law.interval[1]
    assert inside >= 16


def test_density_at_zero_with_a_known_exponent():
    sample = np.random.default_rng(0).exponential(0.25, 10**5)  # density 4 at 0
    assert fit_sample(sample, exponent=1).amplitude == pytest.approx(4, rel=0.03)
    assert fit_sample(sample, exponent=1).interval == (1, 1)


def test_zeros_infinities_and_nan_in_a_sample():
    rng = np.random.default_rng(0)
    sample = np.concatenate([rng.random(4000), np.full(1000, np.inf), np.full(50, np.nan)])
    law = fit_sample(torch.tensor(sample))
    assert law.total == 5000
    assert law.amplitude * law.high**law.exponent == pytest.approx(0.8 * law.high, rel=0.25)
    mass = fit_sample(np.concatenate([np.zeros(500), rng.random(5500)]))
    assert mass.exponent < 0.05  # a twelfth of all is at 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.2, 0.1], [1, 1], 10), "edges: expected ascending"),
        (([0.0, 0.1], [1, 1], 10), "edges: expected ascending"),
        (([], [], 10), "edges: expected ascending"),
        (([0.1, math.nan], [1, 1], 10), "edges: expected ascending"),
        (([0.1, 0.2], [1], 10), "counts: expected 2 numbers"),
        (([0.1, 0.2], [9, 9], 10), "counts: expected 2 numbers >= 0, at most 10"),
        (([0.1, 0.2], [-1, 1], 10), "counts: expected 2 numbers"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        fit_counts(*arguments)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"plateau": 0.0}, "plateau: expected a share"),
        ({"correction": "none"}, "correction: expected one of"),
        ({"exponent": 0.0}, "exponent: expected a number > 0"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        fit_counts([0.1, 0.2], [1, 1], 10, **settings)
