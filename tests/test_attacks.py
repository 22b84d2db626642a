"""The contract of the attacks, against formulas on models whose gradient is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from metrics.accuracy import correct, robust_accuracy
from metrics.attacks import FGSM, PGD, StepLL, evaluating, input_gradient
from metrics.attacks.geometry import Draws, in_ball

EPSILON = 8 / 255
ATTACKS = [
    FGSM(epsilon=EPSILON),
    FGSM(epsilon=0.5, norm="l2"),
    StepLL(epsilon=EPSILON),
    PGD(epsilon=EPSILON, step_size=2 / 255, steps=3),
    PGD(epsilon=EPSILON, steps=3, random_start=False),
    PGD(epsilon=EPSILON, steps=2, restarts=3),
    PGD(epsilon=0.5, step_size=0.2, steps=3, norm="l2"),
    PGD(epsilon=0.5, step_size=0.2, steps=3, norm="l2", random_start=False),
]
every_attack = pytest.mark.parametrize("attack", ATTACKS, ids=repr)


@pytest.fixture
def images():
    return torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def labels():
    return torch.tensor([0, 1, 2, 3, 4, 5])


@pytest.fixture
def net():
    """A net with everything that can be left in disorder."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(144, 10)).train()
    model[1].eval()  # frozen batch norm inside a training model
    model[0].weight.requires_grad_(False)
    model[5].weight.grad = torch.ones_like(model[5].weight)
    return model


def state(model):
    tensors = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    return tensors, modes, [p.requires_grad for p in model.parameters()], grads


def assert_same_state(a, b):
    assert a[1:3] == b[1:3]
    assert all(torch.equal(a[0][k], b[0][k]) for k in a[0])
    assert all((p is None) == (q is None) for p, q in zip(a[3], b[3], strict=True))
    assert all(p is None or torch.equal(p, q) for p, q in zip(a[3], b[3], strict=True))


@every_attack
def test_stays_in_the_ball_and_the_box(attack, net, images, labels):
    adversarial = attack(net, images, labels, generator=torch.Generator().manual_seed(0))
    delta = (adversarial - images).flatten(1)
    norm = getattr(attack, "norm", "linf")
    length = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
    assert (length <= attack.epsilon + 1e-6).all()
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert (delta != 0).any(dim=1).all()


@every_attack
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_leaves_model_and_images_as_found(attack, mode, net, images, labels):
    before, copy = state(net), images.clone()
    with mode():
        adversarial = attack(net, images, labels)
    assert_same_state(before, state(net))
    assert torch.equal(images, copy)
    assert not adversarial.requires_grad


def test_modes_come_back_after_an_exception(net, images, labels):
    before = state(net)
    with pytest.raises(RuntimeError):
        FGSM()(net, images[..., :5], labels)
    assert_same_state(before, state(net))


@every_attack
def test_the_generator_decides(attack, net, images, labels):
    torch.manual_seed(0)
    a = attack(net, images, labels, generator=torch.Generator().manual_seed(5))
    torch.manual_seed(1)
    b = attack(net, images, labels, generator=torch.Generator().manual_seed(5))
    c = attack(net, images, labels, generator=torch.Generator().manual_seed(6))
    assert torch.equal(a, b)
    random = isinstance(attack, PGD) and attack.random_start
    assert torch.equal(a, c) != random


def linear(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def loss_gradient(model, x, y):
    """(p - onehot) W for a linear model: no autograd."""
    p = model(x).softmax(1) - nn.functional.one_hot(y, 10)
    return (p @ model[1].weight).view_as(x).detach()


def test_the_input_gradient_is_each_images_own(images, labels):
    model = linear()
    found = input_gradient(model, images, labels)
    assert torch.allclose(found, loss_gradient(model, images, labels), atol=1e-6)


def test_fgsm_is_the_formula(images, labels):
    model = linear()
    gradient = loss_gradient(model, images, labels)
    expected = (images + EPSILON * gradient.sign()).clamp(0, 1)
    assert torch.allclose(FGSM(epsilon=EPSILON)(model, images, labels), expected, atol=1e-6)
    length = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    expected = (images + 0.3 * gradient / length).clamp(0, 1)
    assert torch.allclose(FGSM(epsilon=0.3, norm="l2")(model, images, labels), expected, atol=1e-5)


def test_step_ll_goes_to_the_least_likely_class(images, labels):
    model = linear()
    least = model(images).argmin(1)
    expected = (images - EPSILON * loss_gradient(model, images, least).sign()).clamp(0, 1)
    attack = StepLL(epsilon=EPSILON)
    assert torch.allclose(attack(model, images, None), expected, atol=1e-6)
    assert torch.equal(attack(model, images, labels), attack(model, images, None))


def test_fgsm_is_pgd_with_one_step(net, images, labels):
    one = PGD(epsilon=EPSILON, step_size=EPSILON, steps=1, random_start=False)
    assert torch.equal(FGSM(epsilon=EPSILON)(net, images, labels), one(net, images, labels))


def test_without_labels_the_predicted_ones_are_used(net, images):
    with evaluating(net), torch.no_grad():
        predicted = net(images).argmax(1)
    assert torch.equal(FGSM()(net, images), FGSM()(net, images, predicted))


def test_the_attack_sees_the_model_in_eval_mode(images, labels):
    """With dropout on, two runs would differ."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 10)).train()
    assert torch.equal(FGSM()(model, images, labels), FGSM()(model, images, labels))


def test_the_step_does_not_depend_on_the_batch(net, images, labels):
    attack = PGD(epsilon=0.5, step_size=0.2, steps=3, norm="l2", random_start=False)
    together = attack(net, images, labels)
    alone = torch.cat([attack(net, images[i : i + 1], labels[i : i + 1]) for i in range(6)])
    assert torch.allclose(together, alone, atol=1e-5)


def test_more_restarts_never_leave_more_images_right(digits_net, digits):
    x, y = digits.validation.images(), digits.validation.labels
    right = []
    for restarts in (1, 2, 5):
        attack = PGD(epsilon=0.1, step_size=0.1, steps=1, restarts=restarts)
        generator = torch.Generator().manual_seed(0)
        adversarial = attack(digits_net, x, y, generator=generator)
        right.append(correct(digits_net, adversarial, y))
    assert not (right[1] & ~right[0]).any()  # the first start is the same draw
    assert not (right[2] & ~right[1]).any()


@pytest.mark.parametrize("restarts", [1, 3])
def test_a_model_that_breaks_under_attack_is_not_robust(restarts, images):
    class Breaks(nn.Module):  # right on the clean images, NaN beside them
        def forward(self, x):
            near = (x - images[: len(x)]).abs().flatten(1).amax(1, keepdim=True)
            return torch.where(near > 0, torch.nan, 1.0) * torch.tensor([1.0, 0.0, 0.0])

    attack = PGD(epsilon=0.1, steps=2, restarts=restarts)
    result = robust_accuracy(Breaks(), images, torch.zeros(6, dtype=torch.long), attack)
    assert result.accuracy == 0


def test_uniform_in_the_l2_ball():
    """P(|u| <= t) = (t / epsilon)^n, so the mean of |u| / epsilon is n / (n + 1)."""
    x = torch.full((4000, 1, 2, 2), 0.5)
    drawn = in_ball((1, 2, 2), "l2", Draws(x, torch.Generator().manual_seed(0)))
    length = drawn.flatten(1).norm(dim=1)
    assert length.max() <= 1 + 1e-5
    n = 4
    spread = math.sqrt(n / (n + 2) - (n / (n + 1)) ** 2) / math.sqrt(4000)
    assert abs(length.mean().item() - n / (n + 1)) < 5 * spread


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: FGSM(epsilon=8), "8/255, got 8"),
        (lambda: FGSM(epsilon=-0.1), "epsilon"),
        (lambda: FGSM(epsilon=math.nan), "epsilon"),
        (lambda: FGSM(norm="l7"), "l7"),
        (lambda: PGD(steps=0), "steps >= 1, got 0"),
        (lambda: PGD(restarts=0), "restarts >= 1"),
        (lambda: PGD(step_size=2), "step_size"),
    ],
)
def test_bad_settings_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), "uint8"),
        (torch.full((2, 1, 8, 8), 255.0), "255"),
        (torch.full((2, 1, 8, 8), -0.1), "-0.1"),
        (torch.full((2, 1, 8, 8), math.nan), "nan"),
        (torch.zeros(2, 64), "N, C, H, W"),
    ],
)
def test_bad_images_are_refused(bad, match):
    with pytest.raises(ValueError, match=match):
        FGSM()(linear(), bad, torch.zeros(2, dtype=torch.long))


# ---------------------------------------------------------------------------------------- accuracy


def test_robust_accuracy_counts(digits_net, digits):
    x, y = digits.validation.images(), digits.validation.labels
    attack = FGSM(epsilon=0.1)
    result = robust_accuracy(digits_net, x, y, attack, batch_size=37)
    by_hand = correct(digits_net, x, y) & correct(digits_net, attack(digits_net, x, y), y)
    assert torch.equal(result.robust, by_hand)
    p = by_hand.double().mean().item()
    assert result.accuracy == p
    assert result.stderr == pytest.approx(math.sqrt(p * (1 - p) / len(y)))
    assert 0 < p < correct(digits_net, x, y).double().mean().item()


def test_a_model_that_is_never_right_has_accuracy_zero(images):
    class Wrong(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :3] * 0 + torch.tensor([0.0, 0.0, 1.0])

    result = robust_accuracy(Wrong(), images, torch.zeros(6, dtype=torch.long), FGSM())
    assert (result.accuracy, result.stderr) == (0, 0)


def test_epsilon_zero_is_clean_accuracy(digits_net, digits):
    x, y = digits.validation.images(), digits.validation.labels
    for attack in (FGSM(epsilon=0), PGD(epsilon=0, steps=2, step_size=0.1)):
        result = robust_accuracy(digits_net, x, y, attack)
        assert torch.equal(result.robust, correct(digits_net, x, y))


def test_useless_gradients_are_counted(images):
    class Flat(nn.Module):
        def forward(self, x):
            return (x.flatten(1)[:, :3] * 0 + torch.tensor([1.0, 0.0, 0.0])).round()

    class NaNGradient(nn.Module):
        def forward(self, x):
            zero = (x.flatten(1)[:, :1] - x.flatten(1)[:, :1]).sqrt()  # slope infinity * 0
            return torch.cat([1 + zero, zero, zero], dim=1)

    y = torch.zeros(6, dtype=torch.long)
    flat = robust_accuracy(Flat(), images, y, FGSM())
    assert (flat.accuracy, flat.zero_gradients) == (1.0, 6)
    nan = robust_accuracy(NaNGradient(), images, y, FGSM())
    assert nan.nonfinite_gradients == 6


def test_nan_logits_are_never_right(images):
    class Silent(nn.Module):
        def forward(self, x):
            return torch.full((len(x), 3), torch.nan)

    assert not correct(Silent(), images, torch.zeros(6, dtype=torch.long)).any()


def test_accuracy_refuses_mismatched_sizes(images):
    with pytest.raises(ValueError, match="6 images and 2 labels"):
        correct(linear(), images, torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="0 images"):
        correct(linear(), images[:0], torch.zeros(0, dtype=torch.long))
