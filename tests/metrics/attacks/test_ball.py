"""Adversarial images lie in the ball and in the box in every precision: exactly, not nearly."""

from __future__ import annotations

import math

import pytest
import torch
from public import images, net, seeded, top
from torch import nn

from metrics import (
    APGD,
    FAB,
    FGSM,
    PGD,
    Attack,
    Noise,
    Square,
    SquareL2,
    StepLL,
    TargetedAPGD,
    Transfer,
    accuracy_curve,
    gradient_line,
    minimal_fgsm,
    robust_accuracy,
)
from metrics.engine.evaluator import evaluator

KINDS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=str)
RELATIVE = 1e-6  # of an L2 length, whose sum of squares is rounded
CUBES = [
    FGSM(),
    StepLL(),
    PGD(steps=2),
    PGD(steps=2, step_size=1.0, restarts=2),
    PGD(steps=2, target="runner-up", random_start=False),
    APGD(steps=5),
    APGD(steps=3, loss="dlr"),
    TargetedAPGD(steps=3, targets=2),
    FAB(steps=3, targets=2),
    Square(queries=4),
    Noise(draws=2),
    Noise(distribution="gaussian"),
]
BALLS = [
    FGSM(norm="l2", epsilon=0.5),
    PGD(norm="l2", epsilon=0.5, steps=2),
    PGD(norm="l2", epsilon=0.5, steps=2, step_size=40.0, random_start=False),
    APGD(norm="l2", epsilon=0.5, steps=5),
    TargetedAPGD(norm="l2", epsilon=0.5, steps=3, targets=2),
    FAB(norm="l2", epsilon=0.5, steps=3, targets=2),
    SquareL2(epsilon=0.5, queries=6),
    Noise(region="ball", epsilon=0.5),
    Noise(region="ball", epsilon=0.5, distribution="gaussian"),
    Noise(region="sphere", epsilon=0.5, draws=2),
]


def inputs(kind, side=6):
    """Return images, some of which lie on the faces of the box, a net and its labels."""
    x = images(4, side=side).to(kind)
    x[1], x[2, :, 0] = x[1].round(), 1.0
    model = net().to(kind)
    return model, x, top(model, x)


def assert_inside(adversarial, x, distance, epsilon):
    assert adversarial.dtype == x.dtype
    assert adversarial.isfinite().all()
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    delta = (adversarial.double() - x.double()).flatten(1)
    if distance == "linf":
        assert delta.abs().max().item() <= epsilon
    else:
        assert delta.norm(dim=1).max().item() <= epsilon * (1 + RELATIVE)


def ulps(kind, count):
    """Return a length in units of what separates numbers just below 1."""
    return count * torch.finfo(kind).eps / 2


@pytest.mark.parametrize("attack", CUBES, ids=repr)
@every_kind
def test_the_cube(attack, kind):
    model, x, y = inputs(kind)
    lengths = [0, ulps(kind, 0.1), ulps(kind, 1.5), 1 / 255, 8 / 255, 0.1, 0.3, 1.0]
    for epsilon in lengths:
        adversarial = attack.with_epsilon(epsilon)(model, x, y, generator=seeded())
        assert_inside(adversarial, x, "linf", epsilon)
        assert torch.equal(adversarial, x) == (epsilon == 0) or epsilon < 1 / 255


@pytest.mark.parametrize("attack", BALLS, ids=repr)
@every_kind
def test_the_ball(attack, kind):
    model, x, y = inputs(kind)
    for epsilon in (0, 1e-30, ulps(kind, 0.1), 1e-3, 0.5, 3.0, 10.0):
        adversarial = attack.with_epsilon(epsilon)(model, x, y, generator=seeded())
        assert_inside(adversarial, x, "l2", epsilon)
    assert not torch.equal(adversarial, x)


@pytest.mark.parametrize("attack", [CUBES[2], CUBES[5], CUBES[7], BALLS[1], BALLS[3]], ids=repr)
@every_kind
def test_what_a_search_finds(attack, kind):
    """On the fast copy too, and where a search stops halfway."""
    model, x, y = inputs(kind)
    epsilon = 0.3 if attack.distance == "linf" else 3.0
    with evaluator(model, x, y) as ready:
        found = ready.search(
            attack.with_epsilon(epsilon), torch.arange(4), seeded(), keep_images=True
        )
    assert_inside(found.images, x, attack.distance, epsilon)


@pytest.mark.parametrize("kind", [torch.float32, torch.float16], ids=str)
def test_a_large_ball_around_large_images(kind):
    """L2 3.0 is a usual radius of photographs, whose diameter is in the hundreds."""
    x = images(2, side=64).to(kind)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 4)).to(kind)
    y = top(model, x)
    for attack in (PGD(norm="l2", epsilon=3.0, steps=3), APGD(norm="l2", epsilon=3.0, steps=3)):
        adversarial = attack(model, x, y, generator=seeded())
        assert_inside(adversarial, x, "l2", 3.0)
        length = (adversarial.double() - x.double()).flatten(1).norm(dim=1)
        assert length.min() > 2.5  # and it is made use of


@pytest.mark.parametrize("attack", [PGD(norm="l2", steps=3), FGSM(norm="l2")], ids=repr)
def test_a_ball_that_float32_cannot_square(attack):
    """Of 1e-30 around 0, where float32 still has such numbers: their squares are 0 in it."""
    model, x = net(), torch.zeros(2, 3, 6, 6)
    adversarial = attack.with_epsilon(1e-30)(model, x, torch.tensor([0, 1]), generator=seeded())
    length = adversarial.double().flatten(1).norm(dim=1)
    assert (length <= 1e-30 * (1 + RELATIVE)).all()
    assert (length > 0.3e-30).all()


@every_kind
def test_noise_that_is_longer_than_the_box(kind):
    model, x, y = inputs(kind)
    for region in ("cube", "ball", "sphere"):
        noise = Noise(region=region, epsilon=1e3)
        adversarial = noise(model, x, y, generator=seeded())
        assert_inside(adversarial, x, noise.distance, 1e3)
        outermost = (adversarial == 0) | (adversarial == 1)
        assert outermost.double().mean() > 0.9
        assert 0 <= robust_accuracy(model, x, y, noise, generator=seeded()).accuracy <= 1


@every_kind
def test_smallest_images_are_no_further_than_their_size(kind):
    model, x, y = inputs(kind)
    found = minimal_fgsm(model, x, y, limit=1.0, tolerance=1e-4)
    there = found.size.isfinite()
    assert there.any()
    far = (found.images.double() - x.double()).flatten(1).abs().amax(dim=1)
    assert (far[there] <= found.size[there]).all()
    assert (found.images.min() >= 0) & (found.images.max() <= 1)
    assert torch.equal(found.images[~there], x[~there])
    line = gradient_line(model, x, y, length=10.0, scalings=50, clip=True)
    there = line.size.isfinite()
    far = (line.images.double() - x.double()).flatten(1).norm(dim=1)
    assert (far[there] <= line.size[there] * (1 + RELATIVE)).all()


@pytest.mark.parametrize(
    "make", [lambda e: PGD(norm="l2", epsilon=e), lambda e: APGD(norm="l2", epsilon=e, steps=3),
             lambda e: FGSM(norm="l2", epsilon=e),
             lambda e: Transfer(source=net(), attack=PGD(norm="l2", epsilon=e))],
)  # fmt: skip
def test_no_ball_is_wider_than_the_box(make):
    """Whoever asks for more means pixels of 255: no two images are further apart than sqrt(n)."""
    model, x, y = inputs(torch.float32)
    diameter = math.sqrt(3 * 6 * 6)
    make(diameter)(model, x, y)
    robust_accuracy(model, x, y, make(diameter))
    beyond = make(diameter * 1.01)
    for call in (
        lambda: beyond(model, x, y),
        lambda: robust_accuracy(model, x, y, beyond),
        lambda: accuracy_curve(model, x, y, make(0.5), [0.1, diameter * 1.01]),
    ):
        with pytest.raises(ValueError, match=r"epsilon: expected an L2 length up to 10\.39"):
            call()


@pytest.mark.parametrize("kind", [FGSM, StepLL, PGD, APGD, Square])
def test_no_cube_is_wider_than_the_box(kind):
    with pytest.raises(ValueError, match=r"epsilon: expected a pixel distance in \[0, 1\]"):
        kind(epsilon=8)


class Astray(Attack):
    """Leaves the ball, or the box, in an evaluation of its own."""

    uses_gradients = False

    def perturb(self, model, x, labels, generator):
        return x + (2 * self.epsilon if self.epsilon < 1 else 1.0)


@pytest.mark.parametrize("epsilon", [0.1, 1.0])
def test_an_attack_of_ones_own_that_goes_astray_is_not_counted(epsilon):
    model, x, y = inputs(torch.float32)
    with pytest.raises(ValueError, match="Astray: expected images in"):
        robust_accuracy(model, x, y, Astray(epsilon=epsilon))
