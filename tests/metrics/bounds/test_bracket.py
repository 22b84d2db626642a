"""Both ends of the smallest perturbation: the metric, its shares, and what no trial survives."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from metrics import METRICS
from metrics.bounds.both_ends import Contradiction, bracket, median
from metrics.bounds.lower import lower_bounds


@pytest.fixture(scope="module")
def plane():
    """Return a linear model of two classes, 40 images, labels, and their distances in L2."""
    draws = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(2, 16, generator=draws))
        model[1].bias.copy_(torch.tensor([0.1, -0.1]))
    x = 0.4 + 0.2 * torch.rand(40, 1, 4, 4, generator=draws)
    with torch.no_grad():
        logits = model(x).double()
    y = logits.argmax(1)
    y[:5] = 1 - y[:5]  # wrong already
    weight = (model[1].weight[0] - model[1].weight[1]).detach().double()
    lead = (logits[:, 0] - logits[:, 1]).abs()
    lead[:5] = 0
    return model.eval(), x, y, lead, weight


def small_net() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)).eval()
    x = torch.rand(20, 1, 6, 6)
    with torch.no_grad():
        return model, x, model(x).argmax(1)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_both_ends_meet_at_the_distance_from_a_plane(plane, norm):
    model, x, y, lead, weight = plane
    true = lead / (weight.norm() if norm == "l2" else weight.abs().sum())
    found = bracket(model, x, y, norm=norm, generator=torch.Generator().manual_seed(0))
    inside = (true < 0.4) & (true > 0)  # the box plays no part
    assert inside.sum() > 10
    torch.testing.assert_close(found.lower[inside], true[inside], rtol=5e-3, atol=0)
    assert (found.upper[inside] <= 1.01 * true[inside]).all()
    assert (found.lower <= found.upper).all()
    assert (found.upper[:5] == 0).all()
    assert (found.lower[:5] == 0).all()


def test_scores_are_medians_and_shares(plane):
    model, x, y, lead, weight = plane
    true = lead / weight.norm()
    epsilon = float(true.sort().values[20:22].mean())
    metric = METRICS["bracket"](norm="l2", epsilon=epsilon)
    scores = metric(model, x, y, generator=torch.Generator().manual_seed(0))
    assert scores["bracket_lower"] == pytest.approx(
        float(true.sort().values[19:21].mean()), rel=1e-4
    )
    assert scores["bracket_lower"] <= scores["bracket_upper"] <= 1.01 * scores["bracket_lower"]
    assert 1 <= scores["bracket_ratio"] < 1.01
    assert scores["bracket_broken"] == pytest.approx(21 / 40, abs=1 / 40)
    assert scores["bracket_certified"] == 19 / 40
    total = sum(scores[f"bracket_{share}"] for share in ("certified", "broken", "unknown"))
    assert total == pytest.approx(1)
    for share in ("certified", "broken", "unknown"):
        low, high = (scores[f"bracket_{share}_{end}"] for end in ("low", "high"))
        assert 0 <= low <= scores[f"bracket_{share}"] <= high <= 1


def test_an_attack_that_found_nothing_is_unknown(monkeypatch):
    model, x, y = small_net()

    def nothing(model, images, labels, **_):
        class Found:
            size = torch.full((len(images),), torch.inf, dtype=torch.float64)
            found_by = ("none",) * len(images)

        return Found

    monkeypatch.setattr("metrics.bounds.both_ends.smallest_perturbation", nothing)
    metric = METRICS["bracket"](epsilon=0.9)
    scores = metric(model, x, y)
    assert scores["bracket_unknown"] == 1
    assert scores["bracket_certified"] == scores["bracket_broken"] == 0
    assert scores["bracket_upper"] == scores["bracket_ratio"] == math.inf


def test_an_attack_below_a_bound_is_an_error(monkeypatch):
    """A bound that is planted too high is found out, and says where."""
    model, x, y = small_net()
    whole = lower_bounds

    def wrong(*args, **settings):
        found = whole(*args, **settings)
        found.radius[3] *= 1e3
        return found

    monkeypatch.setattr("metrics.bounds.both_ends.lower_bounds", wrong)
    with pytest.raises(Contradiction, match=r"below a certified bound.*for image 3, and 0 more"):
        bracket(model, x, y)


def test_printed_formulas_are_no_bracket():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.ReLU(),
                          nn.Flatten(), nn.Linear(8, 2)).eval()  # fmt: skip
    x, y = torch.rand(2, 1, 6, 6), torch.zeros(2, dtype=torch.long)
    with pytest.raises(ValueError, match="mode: expected certified or tight, got paper"):
        bracket(model, x, y, mode="paper")


def test_the_better_bound_is_taken_for_each_image():
    model, x, y = small_net()
    chain, relaxed = (lower_bounds(model, x, y, linear=which) for which in (False, True))
    assert not chain.linear.any()
    assert relaxed.linear.any()
    assert (relaxed.radius >= chain.radius).all()
    image = int(relaxed.linear.nonzero()[0])
    assert (relaxed.by(image), chain.by(image)) == ("linear relaxation", "layer by layer, tight")
    assert torch.equal(lower_bounds(model, x, y).radius, relaxed.radius)
    simple = lower_bounds(model, x, y, mode="certified")
    assert not simple.linear.any()


def test_what_linear_bounds_are_not_for_is_said():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).eval()
    x, y = torch.rand(2, 1, 2, 2), torch.zeros(2, dtype=torch.long)
    with pytest.raises(ValueError, match="^linear: .*tanh"):
        lower_bounds(model, x, y, linear=True)
    assert not lower_bounds(model, x, y).linear.any()


def test_medians():
    assert median(torch.tensor([3.0, 1.0, 2.0])) == 2
    assert median(torch.tensor([4.0, 1.0, 2.0, 3.0])) == 2.5
    assert median(torch.tensor([1.0, math.inf, math.inf])) == math.inf
    assert median(torch.tensor([1.0, math.inf])) == math.inf
    assert math.isnan(median(torch.tensor([])))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "l1"}, "norm: expected"),
        ({"mode": "exact"}, "mode: expected"),
        ({"budget": 3}, "budget"),
        ({"epsilon": -1.0}, "epsilon: expected"),
    ],
)
def test_settings_are_refused_at_once(settings, message):
    with pytest.raises(ValueError, match=message):
        METRICS["bracket"](**settings)
