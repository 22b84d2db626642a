"""Random draws belong to images: nothing else that is attacked decides what becomes of one."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from public import images, net, seeded, top
from torch import nn

from metrics import (
    APGD,
    FAB,
    PGD,
    Attack,
    Noise,
    Square,
    SquareL2,
    TargetedAPGD,
    Transfer,
    cascade,
    robust_accuracy,
)
from metrics.engine.evaluator import evaluator


@dataclass(frozen=True, kw_only=True)
class Own(Attack):
    """Somebody's attack, which draws for all images it is given together."""

    uses_gradients = False

    def perturb(self, model, x, labels, generator):
        noise = torch.randn(x.shape, generator=generator).sign()
        return (x + self.epsilon * noise).clamp(0, 1)


EPSILON = 0.04
ATTACKS = [
    PGD(epsilon=EPSILON, steps=1),
    PGD(epsilon=EPSILON, steps=2, restarts=3),
    PGD(epsilon=0.3, steps=1, norm="l2"),
    APGD(epsilon=EPSILON, steps=2, restarts=2),
    TargetedAPGD(epsilon=EPSILON, steps=2, targets=2),
    Square(epsilon=EPSILON, queries=6),
    SquareL2(epsilon=0.5, queries=6),
    Noise(epsilon=0.2, draws=2),
    Noise(epsilon=2.0, region="ball"),
    Noise(epsilon=2.0, region="sphere", draws=3),
]
WHOLE = [
    Transfer(source=net(seed=1), attack=PGD(epsilon=EPSILON, steps=1, restarts=2)),
    Own(epsilon=0.2),
]  # which draw for a block of 64 together
STILL = FAB(epsilon=EPSILON, steps=2, targets=2)  # draws nothing
every_attack = pytest.mark.parametrize("attack", [*ATTACKS, *WHOLE], ids=repr)


@pytest.fixture(scope="module")
def batch():
    x = images(100)
    return net(), x, top(net(), x)


def robust(batch, attack, **settings):
    return robust_accuracy(*batch, attack, generator=seeded(3), **settings).robust


def found(model, x, y, attack, rows, **settings):
    """Return the images that a search ends with."""
    with evaluator(model, x, y, **settings) as ready:
        return ready.search(attack, rows, seeded(3), keep_images=True).images


with_still = pytest.mark.parametrize("attack", [*ATTACKS, *WHOLE, STILL], ids=repr)


@with_still
def test_how_many_go_together_plays_no_part(attack, batch):
    model, x, y = batch
    x, y = x[:70], y[:70]
    expected = found(model, x, y, attack, torch.arange(70))
    for size in (1, 7) if attack in ATTACKS[:1] else (7,):
        same = found(model, x, y, attack, torch.arange(70), batch_size=size)
        assert torch.allclose(same, expected, atol=1e-6)
        assert torch.equal(
            robust((model, x, y), attack, batch_size=size), robust((model, x, y), attack)
        )


@with_still
def test_others_that_are_wrong_play_no_part(attack, batch):
    """Those are not attacked at all; or are broken at the first look, and dropped."""
    model, x, y = batch
    expected = robust(batch, attack)
    wrong = y.clone()
    wrong[::3] = (wrong[::3] + 1) % 4
    others = torch.ones(100, dtype=torch.bool)
    others[::3] = False
    assert torch.equal(robust((model, x, wrong), attack)[others], expected[others])
    moved = x.clone()
    moved[::3] = images(34, seed=5)
    right = torch.where(others, y, top(net(), moved))
    assert torch.equal(robust((model, moved, right), attack)[others], expected[others])


@with_still
def test_images_that_are_not_asked_for_play_no_part(attack, batch):
    model, x, y = batch
    rows = torch.tensor([1, 2, 50, 63, 64, 99])
    expected = found(model, x, y, attack, torch.arange(100))[rows]
    assert torch.allclose(found(model, x, y, attack, rows), expected, atol=1e-6)


@with_still
def test_images_that_come_behind_play_no_part(attack, batch):
    """The first images of a larger set: what a metric's limit looks at."""
    model, x, y = batch
    expected = robust(batch, attack)
    for count in (64,) if attack in WHOLE else (64, 70, 1, 9):
        assert torch.equal(robust((model, x[:count], y[:count]), attack), expected[:count])


@every_attack
def test_every_image_has_draws_of_its_own(attack):
    """One image many times over: no two are moved alike."""
    if isinstance(attack, Square):
        attack = Square(epsilon=EPSILON, queries=1)  # stripes of 2 x 18 signs
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 4))
    x = images(1).expand(70, -1, -1, -1)
    noise = Noise(epsilon=attack.epsilon) if isinstance(attack, PGD | APGD | Transfer) else attack
    y = top(model, x)
    delta = found(model, x, y, noise, torch.arange(70)) - x
    assert len(delta.flatten(1).unique(dim=0)) == 70


@every_attack
def test_without_a_generator_torchs_seed_decides(attack, batch):
    model, x, y = batch
    masks = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        masks.append(attack(model, x[:20], y[:20]))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


class Seeding(nn.Module):
    """Seeds torch in every forward pass, as defences do that want their noise repeated."""

    def __init__(self, model):
        super().__init__()
        self.net = model

    def forward(self, x):
        torch.manual_seed(0)
        return self.net(x) + 0 * torch.rand(1)


@every_attack
def test_a_model_that_seeds_torch_changes_nothing(attack, batch):
    model, x, y = batch
    answers = []
    for victim in (model, Seeding(model)):
        torch.manual_seed(5)
        images = attack(victim, x, y)
        torch.manual_seed(5)
        answers.append((images, robust_accuracy(victim, x, y, attack, fast=False).robust))
    assert torch.equal(answers[0][0], answers[1][0])
    assert torch.equal(answers[0][1], answers[1][1])


def test_attacks_of_a_cascade_have_draws_of_their_own(batch):
    """An attack again finds what the first try did not."""
    noise = Noise(epsilon=0.25)
    once = cascade(*batch, [noise], generator=seeded())
    twice = cascade(*batch, [noise, noise], generator=seeded())
    assert torch.equal(twice.broken_by == 0, once.broken_by == 0)
    assert (twice.broken_by == 1).any()
