"""FAB on models whose smallest perturbations are known, and a targeted suite in turn."""

from __future__ import annotations

import pytest
import torch
from public import seeded
from torch import nn

from metrics.attacks import APGD, FAB, PGD, SquareL2, TargetedAPGD
from metrics.attacks.losses import dlr, targeted_dlr
from metrics.attacks.square_l2 import peak
from metrics.robustness.accuracy import robust_accuracy

LONGEST = {"linf": 1.0, "l2": 8.0}


def linear(count=40):
    """Return a linear model of 10 classes in float64, images it gets right, and their labels."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double()
    x = torch.rand(count, 1, 8, 8, generator=seeded(1), dtype=torch.float64) * 0.6 + 0.2
    return model, x, model(x).argmax(dim=1).detach()


def distances(model, x, y, norm):
    """Return the distance of each image to the nearest hyperplane; the box is further away."""
    weight, logits = model[1].weight.detach(), model(x).detach()
    apart = weight[None] - weight[y][:, None]
    dual = apart.abs().sum(dim=2) if norm == "linf" else apart.norm(dim=2)
    lead = logits.gather(1, y[:, None]) - logits
    return (lead / dual).scatter(1, y[:, None], torch.inf).amin(dim=1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fab_finds_the_nearest_boundary_of_a_linear_model(norm):
    model, x, y = linear()
    found = FAB(epsilon=LONGEST[norm], norm=norm, steps=20)(model, x, y)
    delta = (found - x).flatten(1)
    length = delta.abs().amax(dim=1) if norm == "linf" else delta.norm(dim=1)
    share = length / distances(model, x, y, norm)
    assert (model(found).argmax(dim=1) != y).all()
    assert share.min() >= 1 - 1e-9
    assert share.max() <= 1.01


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fab_breaks_what_is_nearer_than_epsilon_and_nothing_else(norm):
    model, x, y = linear()
    away = distances(model, x, y, norm)
    epsilon = away.median().item() * 1.02
    robust = robust_accuracy(model, x, y, FAB(epsilon=epsilon, norm=norm, steps=10)).robust
    assert torch.equal(robust, away > epsilon)
    assert 0 < robust.sum() < len(y)


def test_fab_looks_at_as_many_classes_as_it_is_told():
    """Where the nearest boundary is not that of the runner-up, one class is too few."""
    model, x, y = linear(200)
    away = distances(model, x, y, "linf")
    epsilon = away.median().item()
    one, nine = (
        robust_accuracy(model, x, y, FAB(epsilon=epsilon, targets=n, steps=8)).robust
        for n in (1, 9)
    )
    assert one.sum() > nine.sum()
    assert not (nine & ~one).any()


def test_a_step_of_fab_costs_two_passes_forwards_and_one_back():
    model, x, y = linear(6)
    result = robust_accuracy(
        model, x, y, FAB(epsilon=1e-6, steps=5, targets=2), fast=False, batch_size=6
    )
    assert result.accuracy == 1
    assert result.forwards == 6 + 6 * 2 * 2 * 5  # the clean images first
    assert result.backwards == 6 * 2 * 5


def test_targets_are_the_likeliest_other_classes_each_in_its_own_starts():
    seen = []

    class Seeing(TargetedAPGD):
        def losses(self, logits, aim):
            seen.append(aim.clone())
            return super().losses(logits, aim)

    model, x, y = linear(5)
    attack = Seeing(epsilon=1e-6, steps=2, targets=20, restarts=2)
    assert robust_accuracy(model, x, y, attack, fast=False).accuracy == 1
    order = model(x).argsort(dim=1, descending=True)[:, 1:]  # 9 others, of 20 that were asked for
    aims = torch.stack(seen)
    assert len(aims) == 2 * 9 * 3
    expected = order.T.repeat_interleave(3, dim=0).repeat(2, 1)
    assert torch.equal(aims, expected)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_targeted_auto_pgd_breaks_a_linear_model_at_its_distance(norm):
    model, x, y = linear()
    away = distances(model, x, y, norm)
    epsilon = away.median().item() * 1.05
    attacks = [kind(epsilon=epsilon, norm=norm, steps=40) for kind in (TargetedAPGD, APGD)]
    targeted, plain = (robust_accuracy(model, x, y, a, generator=seeded(0)).robust for a in attacks)
    assert not (~targeted & (away > epsilon)).any()
    assert (targeted & (away <= epsilon * 0.98)).sum() == 0
    assert targeted.sum() < plain.sum()


def test_difference_of_logits_ratios_are_the_papers_formulas():
    """Equations 3 and 7 of Croce and Hein 2020, written with lists."""
    logits = torch.randn(50, 6, generator=seeded(2), dtype=torch.float64)
    labels = logits.argmax(dim=1)  # where the label leads, as in the paper's derivation
    targets = (labels + 2) % 6
    for z, y, t, plain, aimed in zip(
        logits.tolist(), labels.tolist(), targets.tolist(),
        dlr(logits, labels).tolist(), targeted_dlr(logits, targets).tolist(), strict=True,
    ):  # fmt: skip
        top = sorted(z, reverse=True)
        other = max(v for i, v in enumerate(z) if i != y)
        assert plain == pytest.approx(-(z[y] - other) / (top[0] - top[2]))
        assert aimed == pytest.approx(-(z[y] - z[t]) / (top[0] - (top[2] + top[3]) / 2))


def test_a_peak_is_a_hill_and_a_valley():
    """Equation 2 of the paper of Square, by hand for 4 x 4: squares around each half's centre."""
    hill = torch.zeros(2, 4)
    for k in range(3):
        top, left = max(1 - k, 0), max(2 - k, 0)
        hill[top : 1 - k + 2 * k + 1, left : 2 - k + 2 * k + 1] += 1 / (k + 1) ** 2
    whole = torch.cat([hill, -hill])
    assert torch.allclose(peak(4), whole / whole.norm())
    assert peak(7).norm().item() == pytest.approx(1)


def test_square_in_l2_spends_all_of_epsilon_and_beats_noise_of_its_length():
    model, x, y = linear()
    away = distances(model, x, y, "l2")
    epsilon = away.median().item() * 3
    attack = SquareL2(epsilon=epsilon, queries=300)
    found = attack(model, x, y, generator=seeded(0))
    inner = (found > 0).flatten(1).all(1) & (found < 1).flatten(1).all(1)
    length = (found - x).flatten(1).norm(dim=1)
    assert torch.allclose(length[inner], torch.full_like(length[inner], epsilon), rtol=1e-5)
    robust = robust_accuracy(model, x, y, attack, generator=seeded(0)).accuracy
    first = robust_accuracy(
        model, x, y, SquareL2(epsilon=epsilon, queries=1), generator=seeded(0)
    ).accuracy
    assert robust < first - 0.2
    assert not robust_accuracy(model, x, y, attack).robust[away <= 0].any()


def test_no_restart_of_pgd_goes_towards_others():
    with pytest.raises(ValueError, match="target"):
        PGD(target="others")
