import math

import pytest
import torch
from torch import nn

from metrics import FGSM, METRICS, PGD, StepLL, robust_accuracy
from metrics.universality import EPSILONS, error_curve


class Planted(nn.Module):
    """The first pixel is the difference of the logits: a step that passes it breaks the image."""

    def forward(self, x):
        lead = x[:, 0, 0, 0]
        return torch.stack([lead - 0.5, 0.5 - lead], dim=1)


def planted(exponent, count):
    """Return images whose distances to the boundary are F^(1/B) / 2, all equally likely F."""
    shares = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    x = torch.full((count, 1, 1, 1), 0.5, dtype=torch.float64)
    x[:, 0, 0, 0] += shares ** (1 / exponent) / 2
    return x, torch.zeros(count, dtype=torch.long)


@pytest.mark.parametrize("exponent", [0.7, 1.0, 2.0])
@pytest.mark.parametrize("attack", [FGSM(), StepLL(), PGD(steps=5, random_start=False)])
def test_a_planted_law_is_measured(attack, exponent):
    x, y = planted(exponent, 4000)
    found = error_curve(Planted(), x, y, attack)
    assert found.clean == 1
    for epsilon, error in zip(found.epsilons, found.errors, strict=True):
        assert error == pytest.approx(min(1, (2 * epsilon) ** exponent), abs=3e-4)
    assert found.law.exponent == pytest.approx(exponent, rel=0.05)
    assert found.law.interval[0] <= exponent <= found.law.interval[1]
    assert found.law.amplitude == pytest.approx(2**exponent, rel=0.2)


def test_images_that_are_wrong_already_are_no_adversarial_error():
    x, y = planted(1.0, 1000)
    y[::4] = 1
    found = error_curve(Planted(), x, y, FGSM(), [0.1, 0.2])
    assert found.clean == 0.75
    assert found.errors[0] == pytest.approx(0.75 * 0.2, abs=0.01)
    assert found.law.total == 1000
    assert (found.first[::4] == -1).all()
    assert set(found.first.tolist()) == {-1, 0, 1, 2}


def test_l2_epsilons_are_as_far_in_the_mean_square(digits_net, digits):
    x, y = digits.validation.images(), digits.validation.labels
    found = error_curve(digits_net, x, y, FGSM(norm="l2", epsilon=1.0))
    assert found.epsilons == pytest.approx([8 * epsilon for epsilon in EPSILONS])
    alone = robust_accuracy(digits_net, x, y, FGSM(norm="l2", epsilon=found.epsilons[-5]))
    assert found.accuracies[-5] == alone.accuracy


def test_of_a_model_that_is_always_wrong_nothing_is_fitted():
    x, _ = planted(1.0, 100)
    found = error_curve(Planted(), x, torch.ones(100, dtype=torch.long), FGSM())
    assert found.clean == 0
    assert math.isnan(found.law.exponent)


def test_an_epsilon_of_0_is_refused():
    x, y = planted(1.0, 10)
    with pytest.raises(ValueError, match="epsilons: expected distances > 0, got 0"):
        error_curve(Planted(), x, y, FGSM(), [0, 0.1])


# ------------------------------------------------------------------------------------------- scores


def test_scores_of_a_planted_law():
    x, y = planted(1.0, 3000)
    scores = METRICS["error-law"](attack=FGSM(), epsilons=(0.01, 0.03, 0.05, 0.1, 0.3))(
        Planted(), x, y
    )
    assert scores["error_exponent"] == pytest.approx(1, abs=0.15)
    assert scores["error_exponent_low"] < 1 < scores["error_exponent_high"]
    assert scores["error_at_0.05"] == pytest.approx(0.1, abs=0.001)
    assert scores["error_fit_end"] == 0.1
    assert scores["error_fit_images"] == pytest.approx(600, abs=2)


def test_scores_of_logits():
    """Uniform differences on [0, 2]: density 1/2 at 0, median 1."""
    x, y = planted(1.0, 4000)
    scores = METRICS["logit-differences"]()(lambda_net(lambda v: 2 * v - 1), x, y)
    assert scores["logits_12_density"] == pytest.approx(0.5, rel=0.05)
    assert scores["logits_12_median"] == pytest.approx(1, rel=0.01)
    assert scores["logits_12_nearness"] == pytest.approx(0.5, rel=0.05)
    assert scores["logits_12_exponent_low"] < 0 < scores["logits_12_exponent_high"]
    assert math.isnan(scores["logits_13_exponent"])  # there are two classes


def lambda_net(of_pixel):
    class Net(nn.Module):
        def forward(self, x):
            lead = 2 * of_pixel(x[:, 0, 0, 0])
            return torch.stack([lead, torch.zeros_like(lead)], dim=1)

    return Net()


def test_scores_of_linear_response_on_a_linear_model():
    x, y = planted(1.0, 200)
    scores = METRICS["linear-response"]()(Planted(), x, y)
    assert scores["linear_decile"] == pytest.approx(1, rel=1e-4)
    assert scores["linear_median"] == pytest.approx(1, rel=1e-4)
    assert scores["linear_rank"] == pytest.approx(1)
    assert scores["linear_12_first"] == 1
    assert scores["linear_epsilon"] == pytest.approx(0.25, rel=0.01)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attack": FGSM(norm="l2", epsilon=1.0)}, "epsilons: expected ones of their own"),
        ({"attack": PGD(target="labels")}, "target: expected null"),
        ({"epsilons": (0.1, 0.10001)}, "epsilons: expected ones that differ"),
        ({"epsilons": (0.0, 0.1)}, "epsilons: expected distances > 0"),
        ({"epsilons": (0.5, 1.1)}, "epsilon"),
    ],
)
def test_settings_that_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        METRICS["error-law"](**settings)
