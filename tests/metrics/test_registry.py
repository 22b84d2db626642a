"""Every metric keeps the same promises; cost is counted by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from metrics import METRICS, cost
from metrics.robustness.scores import CleanAccuracy
from metrics.susceptibility.scores import PsiRatio
from search_spaces import DepthChannels, Task

every_metric = pytest.mark.parametrize("kind", METRICS.values(), ids=METRICS.keys())


@pytest.fixture
def batch(digits):
    return digits.validation.images(slice(40)), digits.validation.labels[:40]


@every_metric
def test_scores_are_named_floats_decided_by_the_generator(kind, digits_net, batch):
    metric = kind()
    a, b = (metric(digits_net, *batch, generator=torch.Generator().manual_seed(3)) for _ in "ab")
    assert tuple(a) == metric.score_names
    assert all(type(v) is float and math.isfinite(v) for v in a.values())
    assert a == b


@every_metric
def test_the_model_is_left_as_found(kind, digits_net, batch):
    digits_net.train()
    before = {k: v.clone() for k, v in digits_net.state_dict().items()}
    kind()(digits_net, *batch)
    assert digits_net.training
    digits_net.eval()
    assert all(torch.equal(before[k], v) for k, v in digits_net.state_dict().items())


@every_metric
def test_a_label_renames_every_score(kind):
    plain, labelled = kind(), kind(label="mine")
    assert all(name.startswith("mine") for name in labelled.score_names)
    assert not set(plain.score_names) & set(labelled.score_names)


@every_metric
def test_limit_is_checked_and_used(kind, digits_net, batch):
    with pytest.raises(ValueError, match="limit >= 1"):
        kind(limit=0)
    x, y = batch
    generators = [torch.Generator().manual_seed(1) for _ in "ab"]
    assert kind(limit=7)(digits_net, x, y, generator=generators[0]) == kind(limit=None)(
        digits_net, x[:7], y[:7], generator=generators[1]
    )


def test_an_attack_metric_refuses_bad_settings_when_made():
    with pytest.raises(ValueError, match="8/255"):
        METRICS["pgd"](epsilon=8)
    with pytest.raises(ValueError, match="radii"):
        PsiRatio(radii=())


def test_clean_accuracy_counts(digits_net, batch):
    x, y = batch
    right = (digits_net(x).argmax(1) == y).double().mean().item()
    scores = CleanAccuracy()(digits_net, x, y)
    assert scores["clean_accuracy"] == right
    assert scores["clean_accuracy_stderr"] == pytest.approx(math.sqrt(right * (1 - right) / 40))


def test_a_model_that_never_moves_has_no_psi():
    class Constant(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :3] * 0 + 1

    scores = PsiRatio()(Constant(), torch.rand(4, 1, 4, 4), torch.zeros(4, dtype=torch.long))
    assert math.isnan(scores["psi"])


def test_cost_by_hand():
    space = DepthChannels(depth=(2,), channels=(4,), stem="small")
    architecture = space.architecture({"depth": 2, "channels": 4})
    model = space.build(architecture, Task.plain((3, 8, 8), 5))
    # 3x3 on 8x8, pool to 4x4, 3x3 on 4x4, 1x1 on 4x4, linear
    macs = 64 * 4 * 3 * 9 + 16 * 4 * 4 * 9 + 16 * 4 * 4 + 4 * 5
    assert cost.macs(model, torch.rand(1, 3, 8, 8)) == macs
    assert cost.parameters(model) == 3 * 4 * 9 + 8 + 4 * 4 * 9 + 8 + (16 + 4) + (20 + 5)


@pytest.mark.parametrize(
    ("name", "settings", "match"),
    [
        ("suspicion", {"queries": 0}, "queries"),
        ("suspicion", {"draws": 0}, "draws"),
        ("suspicion", {"epsilon": 8}, "epsilon"),
        ("min-fgsm", {"limit_epsilon": 2}, "limit_epsilon"),
        ("pgd", {"target": "labels"}, "least-likely"),
        ("cascade", {"attacks": ()}, "attacks"),
        ("square", {"queries": 0}, "queries"),
        ("noise", {"region": "torus"}, "region"),
        ("apgd", {"loss": "mse"}, "loss"),
    ],
)
def test_settings_are_refused_before_any_training(name, settings, match):
    with pytest.raises(ValueError, match=match):
        METRICS[name](**settings)
