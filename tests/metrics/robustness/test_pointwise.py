import pytest
import torch
from torch import nn

from metrics import FGSM, PGD, StepLL, accuracy_curve, cascade, pointwise_curve, robust_accuracy
from metrics.attacks import Square

EPSILONS = (0.0, 0.01, 0.05, 0.1, 0.2, 0.4)


@pytest.mark.parametrize(
    "attack",
    [FGSM(), FGSM(norm="l2", epsilon=1.0), StepLL(), PGD(steps=3), Square(queries=5)],
    ids=lambda attack: f"{type(attack).__name__} {attack.distance}",
)
def test_every_epsilon_is_that_of_robust_accuracy(attack, digits_net, digits):
    x, y = digits.validation.images(), digits.validation.labels
    epsilons = [8 * e for e in EPSILONS] if attack.distance == "l2" else list(EPSILONS)
    curve = pointwise_curve(
        digits_net, x, y, attack, epsilons, generator=torch.Generator().manual_seed(3)
    )
    for level, epsilon in enumerate(epsilons):
        alone = robust_accuracy(
            digits_net,
            x,
            y,
            attack.with_epsilon(epsilon),
            generator=torch.Generator().manual_seed(3),
        )
        assert torch.equal(curve.robust[level], alone.robust), epsilon
        assert curve.accuracies[level] == alone.accuracy
        assert curve.stderrs[level] == alone.stderr
    assert curve.accuracies[0] > curve.accuracies[-1]
    assert curve.epsilons == tuple(epsilons)


class Comb(nn.Module):
    """Wrong where the mean pixel has moved up by 0.05 to 0.15, right again beyond."""

    def forward(self, x):
        up = x.mean(dim=(1, 2, 3)) - 0.5
        lead = ((up - 0.1).abs() - 0.05) * (1 + up)
        return torch.stack([lead, -lead], dim=1)


def test_an_accuracy_may_rise():
    x, y = torch.full((4, 1, 2, 2), 0.5), torch.zeros(4, dtype=torch.long)
    curve = pointwise_curve(Comb(), x, y, FGSM(), [0.3, 0.1, 0.01], fast=False)
    assert curve.epsilons == (0.01, 0.1, 0.3)
    assert curve.accuracies == (1, 0, 1)


def test_one_gradient_serves_every_epsilon_of_a_step(digits_net, digits):
    x, y = digits.validation.images(), digits.validation.labels
    right = int(pointwise_curve(digits_net, x, y, FGSM(), [0]).robust.sum())
    assert pointwise_curve(digits_net, x, y, FGSM(), EPSILONS).backwards == right


def test_zero_gradients_are_counted():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    nn.init.zeros_(model[1].weight)
    model[1].bias.data = torch.tensor([1.0, 0.0])
    x, y = torch.rand(5, 1, 2, 2), torch.zeros(5, dtype=torch.long)
    curve = pointwise_curve(model, x, y, FGSM(), [0.1, 0.2])
    assert (curve.zero_gradients, curve.accuracies) == (5, (1, 1))


@pytest.mark.parametrize("epsilons", [[], [0.1, 0.1]])
def test_epsilons_are_distinct(epsilons):
    x, y = torch.rand(2, 1, 2, 2), torch.zeros(2, dtype=torch.long)
    with pytest.raises(ValueError, match="epsilons: expected one or more distinct"):
        pointwise_curve(Comb(), x, y, FGSM(), epsilons)


@pytest.mark.parametrize("label", [0, 1], ids=["right everywhere", "right nowhere"])
@pytest.mark.parametrize(
    "measure",
    [
        lambda *given: pointwise_curve(*given, [1.0, 3.0]),
        lambda *given: accuracy_curve(*given, [1.0, 3.0]),
        lambda model, x, y, attack: robust_accuracy(model, x, y, attack.with_epsilon(3.0)),
        lambda model, x, y, attack: cascade(model, x, y, [attack, attack.with_epsilon(3.0)]),
    ],
    ids=["pointwise", "curve", "accuracy", "cascade"],
)
def test_an_epsilon_beyond_the_box_is_refused(measure, label):
    x, y = torch.full((2, 1, 2, 2), 0.5), torch.full((2,), label)
    with pytest.raises(ValueError, match="epsilon: expected an L2 length up to 2, .* got 3.0"):
        measure(Comb(), x, y, FGSM(norm="l2", epsilon=1.0))
