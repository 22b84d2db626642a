"""The suite: the worst case of its attacks, in their order, and warnings of what misleads it."""

from __future__ import annotations

import pytest
import torch
from public import images, net, seeded, top
from torch import nn

from metrics import AutoAttack, cascade, robust_accuracy, standard_attacks
from metrics.attacks import APGD, FAB, Square, SquareL2, TargetedAPGD

QUICK = {"steps": 10, "targets": 3, "queries": 40}
EPSILON = {"linf": 0.03, "l2": 0.4}


@pytest.fixture(scope="module")
def batch():
    x = images(60)
    return net(), x, top(net(), x)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_suite_is_the_worst_case_of_its_attacks(norm, batch):
    suite = AutoAttack(norm=norm, epsilon=EPSILON[norm], **QUICK)
    scores = suite(*batch, generator=seeded(0))
    alone = [
        robust_accuracy(*batch, attack, generator=seeded(0)).accuracy
        for attack in suite.attacks(10)
    ]
    assert 0 < scores["autoattack_accuracy"] <= min(alone[:3]) + 0.05
    broken = sum(
        scores[f"autoattack_by_{name}"] for name in ("apgd_ce", "apgd_t", "fab_t", "square")
    )
    assert scores["autoattack_accuracy"] + broken == pytest.approx(1)  # all are right when clean
    assert scores["autoattack_accuracy_low"] < scores["autoattack_accuracy"]
    assert scores["autoattack_by_apgd_ce"] == pytest.approx(1 - alone[0])


def test_the_budgets_are_the_standard_versions():
    linf = standard_attacks(10)
    assert linf == (APGD(steps=100), TargetedAPGD(steps=100, targets=9), FAB(steps=100, targets=9),
                    Square(queries=5000))  # fmt: skip
    assert isinstance(standard_attacks(10, norm="l2", epsilon=0.5)[3], SquareL2)
    assert AutoAttack().attacks(10) == linf


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_few_classes_have_a_substitute_for_the_ratio(classes):
    assert standard_attacks(classes)[1].loss == ("dlr" if classes == 4 else "ce")
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, classes))
    x = torch.rand(8, 1, 6, 6, generator=seeded(0))
    y = model(x).argmax(dim=1)
    scores = AutoAttack(epsilon=1.0, **QUICK)(model, x, y, generator=seeded(0))
    assert scores["autoattack_accuracy"] == 0


def test_each_attack_sees_only_what_still_stands(batch):
    suite = AutoAttack(epsilon=EPSILON["linf"], **QUICK)
    whole = suite.run(*batch, generator=seeded(0), fast=False)
    first = cascade(*batch, suite.attacks(10)[:1], generator=seeded(0), fast=False)
    assert torch.equal(whole.broken_by == 0, first.broken_by == 0)
    rest = int((whole.broken_by > 0).sum())
    assert 0 < rest < len(batch[2])
    most = rest * (3 * 10 + 3 * 10)  # gradients of two targeted attacks, 3 classes, 10 steps
    assert whole.backwards - first.backwards <= most


def test_what_is_random_or_has_no_gradient_is_said(batch):
    class Random(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :10] + torch.rand(len(x), 10)

    class Rounded(nn.Module):
        def forward(self, x):
            return (x.flatten(1)[:, :10] * 4).round() + torch.arange(10) / 100

    _, x, y = batch
    suite = AutoAttack(epsilon=0.05, **QUICK)
    assert suite(Random(), x, y)["autoattack_randomized"] == 1
    rounded = Rounded()
    scores = suite(rounded, x, rounded(x).argmax(dim=1), generator=seeded(0))
    assert scores["autoattack_zero_gradients"] == 1
    assert scores["autoattack_randomized"] == 0
    assert scores["autoattack_by_square"] > 0.1
