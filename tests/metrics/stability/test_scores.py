"""Stability as scores of a trial."""

from __future__ import annotations

import math

import pytest
from public import seeded

from metrics import METRICS, stability


@pytest.fixture(scope="module")
def some(digits):
    return digits.validation.images()[:30], digits.validation.labels[:30]


def test_scores_are_those_of_the_measure(digits_net, some):
    metric = METRICS["stability"](deltas=[2, 8], draws=30, limit=20)
    scores = metric(digits_net, *some)
    found = stability.measure(digits_net, some[0][:20], some[1][:20], deltas=[2, 8], draws=30)
    assert tuple(scores) == metric.score_names
    assert scores["stability_adversarial"] == found.adversarial.value
    ends = (scores["stability_adversarial_low"], scores["stability_adversarial_high"])
    assert ends == found.adversarial.interval
    assert scores["stability_l2_mean"] == found.norms()[1][0]
    assert scores["stability_linf_sd"] == found.norms()[2][1]
    assert scores["stability_random_2"] == found.random[0].value
    assert scores["stability_random_8"] == found.random[1].value
    assert scores["stability_random_8_high"] == found.random[1].interval[1]
    assert found.random[1].count > 0


def test_the_draws_are_one_set_whatever_the_trial(digits_net, some):
    metric = METRICS["stability"](draws=10, limit=20)
    first, second = (metric(digits_net, *some, generator=seeded(s)) for s in (1, 2))
    assert first == second
    other = METRICS["stability"](draws=10, limit=20, seed=1)(digits_net, *some)
    assert first["stability_adversarial"] == other["stability_adversarial"]
    assert first != other


def test_a_share_of_nothing_is_no_number(digits_net, some):
    x, _ = some
    wrong = (digits_net(x).argmax(dim=1) + 1) % 10
    scores = METRICS["stability"](draws=2)(digits_net, x, wrong)
    assert all(math.isnan(v) for name, v in scores.items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"deltas": []}, "deltas"),
        ({"draws": 0}, "draws: expected >= 1"),
        ({"region": "disc"}, "region"),
        ({"mode": "best"}, "mode"),
        ({"scalings": 1}, "scalings"),
        ({"seed": -1}, "seed"),
        ({"limit": 0}, "limit"),
    ],
)
def test_settings_are_refused_before_training(settings, message):
    with pytest.raises(ValueError, match=message):
        METRICS["stability"](**settings)


def test_two_are_told_apart():
    names = METRICS["stability"](label="noise", deltas=[0.5]).score_names
    assert "noise_adversarial" in names
    assert "noise_random_0.5_low" in names
    assert len(set(names)) == len(names)
