"""The shared set of random perturbations: its laws, and that it is one set."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from metrics.stability import REGIONS, UnitDraws

SHAPE = (3, 4, 5)
N = math.prod(SHAPE)


def drawn(region, count=2000, shape=SHAPE, seed=0):
    return UnitDraws.of(shape, count, region=region, seed=seed).at(range(count))


@pytest.mark.parametrize("region", REGIONS)
def test_a_draw_is_known_by_its_seed_and_number(region):
    some = UnitDraws.of(SHAPE, 50, region=region, seed=3)
    assert len(some) == 50
    whole = some.at(range(50))
    assert whole.shape == (50, *SHAPE)
    assert torch.equal(whole[[7, 3]], some.at([7, 3]))
    assert torch.equal(whole, UnitDraws.of(SHAPE, 80, region=region, seed=3).at(range(50)))
    assert not torch.equal(whole, UnitDraws.of(SHAPE, 50, region=region, seed=4).at(range(50)))
    assert len(whole.flatten(1).unique(dim=0)) == 50


@pytest.mark.parametrize("region", REGIONS)
def test_drawing_leaves_torch_as_found(region):
    before = torch.get_rng_state()
    drawn(region, 3)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("region", REGIONS)
def test_the_squares_of_all_regions_are_about_one(region):
    squares = drawn(region).double().square().flatten(1).sum(dim=1)
    expected = N / (N + 2) if region == "ball" else 1
    assert float(squares.mean()) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(("shape", "mean"), [((3, 32, 32), 3072 / 3073), ((1, 2, 2), 4 / 5)])
def test_lengths_in_the_ball_follow_the_volume(shape, mean):
    """The reference's test 16: lengths are at most 1, on average n / (n + 1)."""
    n = math.prod(shape)
    lengths = drawn("ball", shape=shape).double().flatten(1).norm(dim=1)
    assert (lengths <= 1).all()
    assert float(lengths.mean()) == pytest.approx(mean, abs=5 * math.sqrt(n / (n + 2)) / (n + 1)
                                                  / math.sqrt(2000))  # fmt: skip
    volumes = lengths.numpy() ** n  # uniform in [0, 1]
    assert stats.kstest(volumes, "uniform").pvalue > 1e-3


def test_of_the_other_regions_lengths_are_theirs():
    assert drawn("sphere").flatten(1).norm(dim=1).numpy() == pytest.approx(1, abs=2e-6)
    assert (drawn("sphere").double().flatten(1).norm(dim=1) <= 1).all()
    cube = drawn("cube").flatten().numpy() / math.sqrt(3 / N)
    assert np.abs(cube).max() <= 1
    assert stats.kstest(cube[:20000], stats.uniform(-1, 2).cdf).pvalue > 1e-3
    normal = drawn("gaussian").flatten().numpy() * math.sqrt(N)
    assert stats.kstest(normal[:20000], "norm").pvalue > 1e-3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0}, "draws: expected >= 1, got 0"),
        ({"count": 2.5}, "draws: expected an integer, got 2.5"),
        ({"count": 5, "seed": -1}, "seed: expected >= 0, got -1"),
        ({"count": 5, "region": "simplex"}, "region: expected one of .*'ball'.* got 'simplex'"),
    ],
)
def test_what_is_no_set_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        UnitDraws.of(SHAPE, **settings)
