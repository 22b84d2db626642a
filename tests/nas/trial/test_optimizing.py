"""Optimizing: learning rates by hand, and the gradient of several minibatches is that of one."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

from launch.config.config import load_config
from nas.data.arrays import Data, Split
from nas.seeds import value_hash
from nas.trial.optimizing import Accumulation, learning_rate, steps_of_epoch
from nas.trial.recipe import Recipe
from nas.trial.training import drain, train
from search_spaces import DepthChannels, Task

QUICK = Recipe(epochs=2, batch_size=32, epsilon=0.1, steps=2, selection_images=50)


def net(digits):
    space = DepthChannels(depth=(2,), channels=(8,), stem="small")
    return space.build(space.architecture({"depth": 2, "channels": 8}), digits.task, seed=0)


def run(data, recipe, model):
    generator = torch.Generator().manual_seed(0)
    return drain(train(model, data, recipe, recipe.attack(), generator))


def rates(schedule, epochs=2, steps=4, **settings):
    recipe = Recipe(epochs=epochs, schedule=schedule, learning_rate=0.8, **settings)
    return [learning_rate(recipe, step, steps) for step in range(epochs * steps)]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "step", "halving", "constant"])
def test_every_optimizer_and_schedule_learns(optimizer, schedule, digits):
    recipe = replace(
        QUICK,
        epochs=6,
        optimizer=optimizer,
        schedule=schedule,
        learning_rate=0.1 if optimizer == "sgd" else 0.01,
        adversary="none",
    )
    training = run(digits, recipe, net(digits))
    assert training.epochs[-1].train_loss < training.epochs[0].train_loss
    assert max(e.clean_accuracy for e in training.epochs) > 0.5


def test_schedules_by_hand():
    assert rates("constant") == [0.8] * 8
    assert rates("step") == pytest.approx([0.8] * 4 + [0.08] * 2 + [0.008] * 2)
    assert rates("cosine") == pytest.approx(
        [0.4 * (1 + math.cos(math.pi * i / 8)) for i in range(8)]
    )
    fifths = [0.8, 0.4, 0.2, 0.1, 0.05]
    for steps in (1, 3, 4):  # of 100 epochs the rate halves after every 20
        by_hand = [rate for rate in fifths for _ in range(20 * steps)]
        assert rates("halving", epochs=100, steps=steps) == pytest.approx(by_hand)
    # 7 steps: the k-th half begins at the first step >= 7 k / 5, that is 2, 3, 5, 6.
    odd = [0.8, 0.8, 0.4, 0.2, 0.2, 0.1, 0.05]
    assert rates("halving", epochs=1, steps=7) == pytest.approx(odd)
    cycle = rates("one-cycle")
    assert max(cycle) <= 0.8 + 1e-9
    assert cycle.index(max(cycle)) == 1  # the end of a quarter
    assert all(rate > 0 for rate in cycle)


def test_milestones_by_hand():
    """10 steps: the rate falls at the first step of which that part of the training is done."""
    once = rates("step", epochs=1, steps=10, milestones=(0.6,))
    assert once == pytest.approx([0.8] * 6 + [0.08] * 4)
    thrice = rates("step", epochs=1, steps=10, milestones=(0.25, 0.5, 0.9))
    assert thrice == pytest.approx([0.8] * 3 + [0.08] * 2 + [0.008] * 4 + [0.0008])
    assert rates("step", milestones=()) == rates("constant")


def test_warm_up_by_hand():
    """The first epoch of 4 steps climbs; cosine falls over the 8 that are left of 12."""
    climb = [0.2, 0.4, 0.6, 0.8]
    assert rates("constant", epochs=3, warmup_epochs=1) == pytest.approx(climb + [0.8] * 8)
    fall = [0.4 * (1 + math.cos(math.pi * i / 8)) for i in range(8)]
    assert rates("cosine", epochs=3, warmup_epochs=1) == pytest.approx(climb + fall)
    by_step = [0.8] * 2 + [0.08] * 3 + [0.008] * 3  # from steps 6 and 9 of 12, as without it
    assert rates("step", epochs=3, warmup_epochs=1) == pytest.approx(climb + by_step)
    half = rates("constant", epochs=1, steps=5, warmup_epochs=0.5)  # 2.5 steps
    assert half == pytest.approx([0.32, 0.64, 0.8, 0.8, 0.8])
    late = rates("step", epochs=2, steps=4, warmup_epochs=1.5, milestones=(0.25,))
    assert late == pytest.approx([0.08 * i / 6 for i in range(1, 7)] + [0.08] * 2)


def test_a_schedule_counts_optimizer_steps():
    """10 minibatches in steps of 4, 4 and 2: three steps an epoch."""
    assert steps_of_epoch(150, Recipe(batch_size=16)) == 10
    assert steps_of_epoch(150, Recipe(batch_size=16, accumulate=4)) == 3
    assert steps_of_epoch(150, Recipe(batch_size=16, accumulate=99)) == 1


@pytest.fixture
def ninety():
    """Return 90 images; losses are in float32, all else in float64."""
    generator = torch.Generator().manual_seed(0)
    part = Split(
        torch.rand(90, 1, 4, 4, generator=generator, dtype=torch.float64), torch.arange(90) % 3
    )
    return Data(part, part, Task.plain((1, 4, 4), 3))


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).double()


ADDED = Recipe(
    epochs=3, adversary="none", selection_images=0, schedule="cosine", warmup_epochs=1,
    learning_rate=0.5, gradient_clip=0.4,
)  # fmt: skip


@pytest.mark.parametrize(("few", "minibatches"), [(20, 2), (10, 4), (90, 1)])
def test_several_minibatches_are_one_large_one(few, minibatches, ninety):
    """Batches of 40 (the last of 10), whole or in minibatches: the same steps and weights."""
    whole, parts = linear(), linear()
    recipe = replace(ADDED, batch_size=few * minibatches)
    run(ninety, recipe, whole)
    run(ninety, replace(recipe, batch_size=few, accumulate=minibatches), parts)
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-7)


def test_images_of_a_short_minibatch_count_the_same(ninety):
    """90 images in minibatches of 40, 40 and 10 are one step of all 90."""
    whole, parts = linear(), linear()
    run(ninety, replace(ADDED, batch_size=90), whole)
    run(ninety, replace(ADDED, batch_size=40, accumulate=3), parts)
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-7)


def test_a_layer_that_a_minibatch_leaves_out_has_a_gradient_of_zero_there():
    model = nn.ModuleList([nn.Linear(1, 1, bias=False) for _ in range(3)])
    used, sometimes, never = (layer.weight for layer in model)
    sums = Accumulation(model, 2)
    used.grad, sometimes.grad = torch.tensor([[3.0]]), None
    assert not sums.step_due(30, last=False)
    used.grad, sometimes.grad = torch.tensor([[6.0]]), torch.tensor([[8.0]])
    assert sums.step_due(10, last=False)
    assert [used.grad.item(), sometimes.grad.item(), never.grad] == [3.75, 2.0, None]
    used.grad = torch.tensor([[5.0]])
    assert sums.step_due(7, last=True)  # an incomplete one makes its step too
    assert used.grad.item() == 5.0


def test_gradient_clipping_bounds_the_step(digits):
    before, model = net(digits), net(digits)
    recipe = replace(
        QUICK, epochs=1, adversary="none", schedule="constant", momentum=0.0, weight_decay=0.0,
        gradient_clip=1e-3, batch_size=len(digits.train),
    )  # fmt: skip
    run(digits, recipe, model)
    pairs = zip(model.parameters(), before.parameters(), strict=True)
    assert torch.stack([(p - q).norm() for p, q in pairs]).norm().item() <= 0.1 * 1e-3 * 1.01


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"schedule": "piecewise"}, "^schedule: .*'piecewise', which is called step here"),
        ({"schedule": "cyclic"}, "which is called one-cycle here"),
        ({"milestones": (0.0, 0.5)}, r"^milestones: expected increasing .*got \[0.0, 0.5\]"),
        ({"milestones": (0.5, 1.0)}, "^milestones"),
        ({"milestones": (0.5, 0.5)}, "^milestones"),
        ({"milestones": (0.8, 0.5)}, "^milestones"),
        ({"milestones": (0.5, math.nan)}, "^milestones"),
        ({"schedule": "cosine", "warmup_epochs": -1}, "^warmup_epochs: expected 0 or more"),
        ({"schedule": "cosine", "warmup_epochs": math.nan}, "^warmup_epochs"),
        ({"schedule": "cosine", "warmup_epochs": 10}, "fewer than the 10 epochs, got 10"),
        ({"warmup_epochs": 1}, "^warmup_epochs: expected 0 for the schedule one-cycle"),
        ({"accumulate": 0}, "^accumulate: expected >= 1, got 0"),
    ],
)
def test_bad_schedules_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        Recipe(**settings)


def test_milestones_are_one_recipe_as_a_tuple_and_as_a_list():
    recipe = Recipe(milestones=(0.5, 0.8))
    assert Recipe(milestones=[0.5, 0.8]) == recipe
    assert Recipe(milestones=[0.5, 0.8]).hash == recipe.hash
    assert Recipe(**json.loads(json.dumps(asdict(recipe)))) == recipe
    assert Recipe(milestones=[0.5, 0.75]).hash == Recipe().hash == "be5c8ceaf2963206"
    assert value_hash(recipe) != value_hash(Recipe())


def test_milestones_are_set_and_varied():
    config = load_config(
        "digits",
        [
            "recipe.schedule=step",
            "recipe.milestones=[0.5, 0.8]",
            "vary={recipe.milestones: [[0.6], [0.5, 0.9]], recipe.accumulate: [1, 2]}",
        ],
    )
    assert config.recipe.milestones == (0.5, 0.8)
    assert load_config("digits", ["recipe.milestones=[1/2, 4/5]"]).recipe.milestones == (0.5, 0.8)
    plan = config.plan()
    assert plan.template.recipe == config.recipe
    assert plan.vary["recipe.milestones"] == [[0.6], [0.5, 0.9]]  # as JSON keeps it
    varied = plan.template.varied("recipe.milestones", [0.6])
    assert varied.recipe == replace(config.recipe, milestones=(0.6,))
