"""Curves over epsilon, cascades, and results that can be repeated."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import binomtest
from torch import nn

from metrics.attacks import APGD, FGSM, PGD, Attack, Noise, Square, Transfer
from metrics.robustness.accuracy import correct, robust_accuracy, standard_error, wilson
from metrics.robustness.cascade import cascade
from metrics.robustness.curves import accuracy_curve

ONE_SIGMA = 0.6826894921370859
EPSILONS = (0.02, 0.05, 0.08, 0.12, 0.2)


@pytest.fixture(scope="module")
def validation(digits):
    return digits.validation.images(), digits.validation.labels


def linear(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))


def distances(model, x, y):
    """L-infinity distance of each image to a two-class linear boundary: |margin| / ||w||_1."""
    w = model[1].weight[1] - model[1].weight[0]
    with torch.no_grad():
        z = model(x)
    margin = (z[:, 1] - z[:, 0]) * (2 * y - 1)
    return margin.abs() / w.detach().abs().sum()


def test_a_curve_of_a_linear_model_is_its_distance(digits):
    """Images in [0.3, 0.7] keep the box out of it, so FGSM is exact."""
    model = linear()
    x = 0.3 + 0.4 * torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = model(x).argmax(1)
    exact = distances(model, x, y)
    epsilons = exact.quantile(torch.linspace(0.05, 0.95, 8)).tolist()
    curve = accuracy_curve(model, x, y, FGSM(), epsilons)
    for epsilon, accuracy, robust in zip(epsilons, curve.accuracies, curve.robust, strict=True):
        assert accuracy == pytest.approx((exact > epsilon).double().mean().item(), abs=0.011)
        assert not (robust & (exact < epsilon * 0.999)).any()


@pytest.mark.parametrize(
    "attack",
    [
        FGSM(),
        PGD(steps=10, random_start=False),
        PGD(steps=10, step_size=0.01),
        PGD(steps=5, norm="l2"),
        APGD(steps=10),
        Square(queries=30),
        Noise(draws=3, region="ball"),
    ],
    ids=repr,
)
def test_a_curve_never_rises_and_is_no_weaker_than_its_points(attack, digits_net, validation):
    x, y = validation
    epsilons = (0, *EPSILONS) if attack.distance == "linf" else (0, 0.2, 0.5, 1.0)
    curve = accuracy_curve(
        digits_net, x, y, attack, epsilons[::-1], generator=torch.Generator().manual_seed(0)
    )
    assert curve.epsilons == tuple(epsilons)
    assert torch.equal(curve.robust[0], correct(digits_net, x, y))
    assert not (curve.robust[1:] & ~curve.robust[:-1]).any()
    assert curve.accuracies == tuple(curve.robust.double().mean(1).tolist())
    for epsilon, accuracy in zip(curve.epsilons[1:], curve.accuracies[1:], strict=True):
        single = robust_accuracy(
            digits_net,
            x,
            y,
            attack.with_epsilon(epsilon),
            generator=torch.Generator().manual_seed(0),
        )
        assert accuracy <= single.accuracy + 0.03  # other random draws
    assert curve.accuracies[-1] < curve.accuracies[0]


def test_a_curve_costs_less_than_its_points(digits_net, validation):
    x, y = validation
    attack = PGD(steps=20, random_start=False)
    curve = accuracy_curve(digits_net, x, y, attack, EPSILONS)
    points = [robust_accuracy(digits_net, x, y, attack.with_epsilon(e)) for e in EPSILONS]
    assert curve.forwards + curve.backwards < 0.7 * sum(p.forwards + p.backwards for p in points)


@pytest.mark.parametrize("bad", [(), (0.1, 0.1), (0.1, 2.0)])
def test_a_curve_refuses_bad_epsilons(bad, digits_net, validation):
    with pytest.raises(ValueError, match="epsilon"):
        accuracy_curve(digits_net, *validation, FGSM(), bad)


def test_a_cascade_is_the_worst_case_image_by_image(digits_net, validation):
    x, y = validation
    attacks = (
        FGSM(epsilon=0.05),
        PGD(epsilon=0.05, steps=10, random_start=False),
        PGD(epsilon=0.05, steps=5, random_start=False, target="runner-up"),
    )
    result = cascade(digits_net, x, y, attacks)
    alone = [robust_accuracy(digits_net, x, y, attack).robust for attack in attacks]
    assert torch.equal(result.robust, alone[0] & alone[1] & alone[2])
    assert result.accuracy == result.robust.double().mean().item() == result.accuracies[-1]
    assert result.accuracies[0] == alone[0].double().mean().item()
    assert torch.equal(result.broken_by == -1, ~correct(digits_net, x, y))
    assert torch.equal(result.broken_by == 1, alone[0] & ~alone[1])
    assert torch.equal(result.broken_by == 3, result.robust)
    with pytest.raises(ValueError, match="at least one"):
        cascade(digits_net, x, y, ())


def test_a_result_repeats_itself(digits_net, validation):
    x, y = validation
    generator = torch.Generator().manual_seed(7)
    torch.rand(5, generator=generator)
    first = robust_accuracy(
        digits_net, x, y, PGD(epsilon=0.06, steps=2), generator=generator, batch_size=33
    )
    again = torch.Generator()
    again.set_state(first.generator_state)
    second = robust_accuracy(
        digits_net, x, y, first.attack, generator=again, batch_size=first.batch_size
    )
    assert torch.equal(first.robust, second.robust)
    other = robust_accuracy(
        digits_net, x, y, first.attack, generator=torch.Generator().manual_seed(8)
    )
    assert not torch.equal(first.robust, other.robust)


def test_transfer_is_the_source_models_attack(digits_net, validation, digits):
    x, y = validation
    source = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    attack = FGSM(epsilon=0.1)
    result = robust_accuracy(digits_net, x, y, Transfer(source=source, attack=attack))
    adversarial = attack(source, x, y)
    expected = correct(digits_net, x, y) & correct(digits_net, adversarial, y)
    assert torch.equal(result.robust, expected)
    white_box = robust_accuracy(digits_net, x, y, attack)
    assert white_box.accuracy < result.accuracy < 1
    curve = accuracy_curve(digits_net, x, y, Transfer(source=source, attack=attack), (0.1, 0.3))
    assert curve.accuracies[1] < curve.accuracies[0]


def test_anybodys_attack_will_do(digits_net, validation):
    """Only perturb is written: accuracy, gradient counts and curves follow."""

    class Brighten(Attack):
        def perturb(self, model, x, labels, generator):
            return (x + self.epsilon).clamp(0, 1)

    x, y = validation
    result = robust_accuracy(digits_net, x, y, Brighten(epsilon=0.3))
    expected = correct(digits_net, x, y) & correct(digits_net, (x + 0.3).clamp(0, 1), y)
    assert torch.equal(result.robust, expected)
    assert result.zero_gradients == 0


def test_targets_of_an_evaluation_are_its_own(digits_net, validation):
    with pytest.raises(ValueError, match="least-likely"):
        robust_accuracy(digits_net, *validation, PGD(target="labels"))


@pytest.mark.parametrize(
    ("right", "n"), [(0, 1), (1, 1), (0, 500), (500, 500), (3, 7), (740, 1000)]
)
def test_intervals_are_scipys(right, n):
    share = right / n
    found = wilson(share, n)
    assert found == pytest.approx(binomtest(right, n).proportion_ci(0.95, "wilson"), abs=1e-12)
    assert 0 <= found[0] <= share <= found[1] <= 1
    assert found[0] < found[1]
    low, high = binomtest(right, n).proportion_ci(ONE_SIGMA, "wilson")
    assert standard_error(share, n) == pytest.approx((high - low) / 2)


def test_results_have_the_interval_of_their_accuracy(digits_net, validation):
    x, y = (part[:100] for part in validation)
    attack = FGSM(epsilon=0.05)
    one = robust_accuracy(digits_net, x, y, attack)
    several = cascade(digits_net, x, y, [attack])
    right = int(one.robust.sum())
    assert 0 < right < 100
    expected = pytest.approx(tuple(binomtest(right, 100).proportion_ci(0.95, "wilson")))
    assert one.interval == several.interval == expected
