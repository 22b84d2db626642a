"""Training: the loss is the formula, seeds decide, and the best epoch is kept beside the last."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from fake_cuda import fake_cuda
from torch import nn

from metrics.attacks import ATTACKS, FGSM, PGD, Attack, StepLL
from metrics.robustness.accuracy import correct
from nas.data.arrays import Data, Split
from nas.errors import Diverged
from nas.trial.minibatch import batch_loss
from nas.trial.recipe import Recipe
from nas.trial.training import drain, train
from search_spaces import SEARCH_SPACES, DepthChannels, Task

QUICK = Recipe(epochs=2, batch_size=32, epsilon=0.1, steps=2, selection_images=50)

TINY_SPACES = {
    "depth-channels": {"depth": (2,), "channels": (4,), "stem": "small"},
    "resnet": {"depth": (18,), "stem": "small"},
    "cifar-resnet": {"form": ("wide",), "depth": (10,), "dropout": (0.3,)},
    "nasbench201": {"cells": 1, "filters": 4},
    "nasnet": {"blocks": 2, "cells": 1, "filters": 4, "drop_path": 0.2},
    "feedforward": {"kinds": ("conv",), "channels": (8,), "dropout": (0.3,)},
    "vgg-lite": {"blocks": (2,), "filters": (4,), "units": (8,)},
    "lenet": {"filters": (4,), "units": (8,)},
    "torchvision": {"model": ("shufflenet_v2_x0_5",)},
}


def net(digits: Data, seed=0, channels=8):
    space = DepthChannels(depth=(2,), channels=(channels,), stem="small")
    return space.build(
        space.architecture({"depth": 2, "channels": channels}), digits.task, seed=seed
    )


def run(digits, recipe, seed=0, model=None):
    model = model or net(digits)
    generator = torch.Generator().manual_seed(seed)
    return model, drain(train(model, digits, recipe, recipe.attack(), generator))


def with_(recipe, **settings):
    from dataclasses import replace

    return replace(recipe, **settings)


def test_adversarial_training_makes_the_net_more_robust(digits):
    clean, _ = run(digits, with_(QUICK, epochs=10, adversary="none"))
    robust, training = run(digits, with_(QUICK, epochs=10, steps=5))
    x, y = digits.validation.images(), digits.validation.labels
    attack = PGD(epsilon=0.1, steps=7)
    adversarial = [
        attack(m, x, y, generator=torch.Generator().manual_seed(0)) for m in (clean, robust)
    ]
    shares = [
        correct(m, a, y).double().mean().item()
        for m, a in zip((clean, robust), adversarial, strict=True)
    ]
    assert shares[1] > shares[0] + 0.2
    assert [e.epoch for e in training.epochs] == list(range(1, 11))


def test_the_generator_decides(digits):
    weights = [run(digits, QUICK, seed=s)[0].state_dict() for s in (1, 1, 2)]
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    assert any(not torch.equal(weights[0][k], weights[2][k]) for k in weights[0])


class Constant(nn.Module):
    """Logits that are parameters: the loss is known."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, x):
        return self.logits.expand(len(x), -1) + 0 * x.flatten(1).sum(1, keepdim=True)


def test_the_entropy_weight_penalises_entropy():
    """loss + λ H(p) with H = -Σ p ln p, by hand."""
    logits = [1.0, 0.0, -1.0]
    p = [math.exp(v) / sum(math.exp(w) for w in logits) for v in logits]
    entropy = -sum(q * math.log(q) for q in p)
    x, y = torch.rand(4, 1, 2, 2), torch.zeros(4, dtype=torch.long)
    for weight in (0.0, 4.5):
        recipe = Recipe(adversary="none", entropy_weight=weight)
        loss = batch_loss(Constant(logits), x, y, recipe, None, torch.Generator())
        assert loss.item() == pytest.approx(-math.log(p[0]) + weight * entropy, rel=1e-5)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.5, 5), (1.0, 10)])
@pytest.mark.parametrize(("adversary", "labelled"), [("pgd", True), ("fgsm", False)])
def test_the_share_of_the_minibatch_is_attacked(share, expected, adversary, labelled, digits):
    seen = []

    class Spy(Attack):
        leaks_labels = ATTACKS[adversary].leaks_labels

        def perturb(self, model, x, labels, generator):
            seen.append((len(x), labels is not None))
            return x

    recipe = with_(QUICK, adversarial_share=share, adversary=adversary)
    x, y = digits.train.images(slice(10)), digits.train.labels[:10]
    batch_loss(net(digits), x, y, recipe, Spy(), torch.Generator())
    assert seen == ([(expected, labelled)] if expected else [])


@pytest.mark.parametrize(
    ("adversary", "kind"), [("none", type(None)), ("fgsm", FGSM), ("step-ll", StepLL), ("pgd", PGD)]
)
def test_the_recipe_names_its_attack(adversary, kind):
    recipe = Recipe(adversary=adversary, epsilon=0.2, steps=3, step_size=0.1)
    assert type(recipe.attack()) is kind
    assert recipe.judge() == PGD(epsilon=0.2, steps=3, step_size=0.1)


def test_an_adversary_in_l2_has_its_own_epsilon_and_is_judged_in_l2(monkeypatch):
    @dataclass(frozen=True, kw_only=True)
    class InL2(PGD):
        norm: str = "l2"

    monkeypatch.setitem(ATTACKS, "pgd-l2", InL2)
    with pytest.raises(ValueError, match=r"^epsilon: expected one of its own for norm l2"):
        Recipe(adversary="pgd-l2")
    recipe = Recipe(adversary="pgd-l2", epsilon=0.5, steps=3)
    assert recipe.attack() == InL2(epsilon=0.5, steps=3)
    assert recipe.judge() == PGD(epsilon=0.5, steps=3, norm="l2")


def test_best_and_last_epoch_are_both_kept(digits):
    """A learning rate that spoils the net late: the best epoch is not the last."""
    recipe = with_(QUICK, epochs=6, schedule="constant", learning_rate=0.3)
    for seed in range(20):
        model, training = run(digits, recipe, seed=seed)
        last = training.epochs[-1]
        if training.best.robust_accuracy > last.robust_accuracy:
            break
    assert training.best.robust_accuracy == max(e.robust_accuracy for e in training.epochs)
    assert training.best.robust_accuracy > last.robust_accuracy
    x, y = digits.validation.images(slice(50)), digits.validation.labels[:50]
    assert correct(model, x, y).double().mean().item() == training.best.clean_accuracy
    model.load_state_dict(training.last_weights)
    assert correct(model, x, y).double().mean().item() == last.clean_accuracy


def test_without_images_to_judge_by_the_last_epoch_is_kept(digits):
    recipe = with_(QUICK, epochs=3, selection_images=0)
    model, training = run(digits, recipe)
    assert training.best == training.last
    assert training.best.epoch == 3
    assert math.isnan(training.best.robust_accuracy)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, training.last_weights[name])


def test_no_epochs_leave_the_model_as_it_was(digits):
    before = net(digits).state_dict()
    model, training = run(digits, with_(QUICK, epochs=0))
    assert (training.epochs, training.best.epoch) == ((), 0)
    assert not model.training
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name])


def test_divergence_is_found(digits):
    class Explode(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 10)

        def forward(self, x):
            return self.layer(x.flatten(1)) * torch.inf

    with pytest.raises(Diverged, match="epoch 1, step 1"):
        run(digits, with_(QUICK, adversary="none"), model=Explode())
    with pytest.raises(Diverged):
        run(digits, with_(QUICK, learning_rate=1e20, adversary="none", momentum=0.0))


def test_a_last_batch_of_one_is_left_out():
    """Batch norm over one 1 x 1 image has no variance and would raise."""
    generator = torch.Generator().manual_seed(0)
    part = Split(torch.rand(33, 1, 4, 4, generator=generator), torch.arange(33) % 3)
    data = Data(part, part, Task.plain((1, 4, 4), 3))
    space = DepthChannels(depth=(2,), channels=(4,), stem="imagenet")
    model = space.build(space.architecture({"depth": 2, "channels": 4}), data.task)
    _, training = run(data, with_(QUICK, batch_size=16), model=model)
    assert len(training.epochs) == QUICK.epochs


def test_whole_numbers_and_floats_are_one_recipe():
    assert Recipe(entropy_weight=1).hash == Recipe(entropy_weight=1.0).hash


def test_bf16_autocast_trains(digits):
    _, training = run(digits, with_(QUICK, epochs=6, precision="bf16", adversary="none"))
    assert training.best.clean_accuracy > 0.5


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"epsilon": 8}, "epsilon.*8/255"),
        ({"epochs": -1}, "epochs: expected >= 0"),
        ({"optimizer": "lion"}, "lion"),
        ({"schedule": "magic"}, "magic"),
        ({"loss": "hinge"}, "^loss: expected one of .*cross-entropy.*mse.*hinge"),
        ({"loss": "mse", "label_smoothing": 0.1}, "^label_smoothing: expected 0 for the loss mse"),
        ({"adversary": "cw"}, "cw"),
        ({"precision": "fp8"}, "fp8"),
        ({"adversarial_share": 1.5}, "adversarial_share"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"entropy_weight": math.inf}, "entropy_weight"),
        ({"gradient_clip": 0}, "gradient_clip"),
        ({"weight_decay": -1}, "weight_decay"),
        ({"weight_decay": math.nan}, "weight_decay"),
        ({"steps": 0}, "steps"),
    ],
)
def test_bad_recipes_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        Recipe(**settings)


@pytest.mark.parametrize(
    ("name", "precision"), [*((name, "auto") for name in SEARCH_SPACES), ("feedforward", "bf16")]
)
def test_an_epoch_on_a_gpu_leaves_the_cpus_weights(name, precision):
    space = SEARCH_SPACES[name](**TINY_SPACES[name])
    side = 16 if name == "lenet" else 8
    task = Task.plain((3, side, side), 3)
    architecture = space.sample(np.random.default_rng(0))
    pixels = torch.rand(30, *task.shape, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(30) % 3
    recipe = Recipe(
        epochs=1, batch_size=8, learning_rate=0.01, epsilon=0.05, steps=2, selection_images=6,
        flip=True, crop_padding=1, entropy_weight=0.5, label_smoothing=0.1, gradient_clip=1.0,
        precision=precision, attack_precision="float32" if precision == "auto" else "auto",
        cutout=3, accumulate=2,
    )  # fmt: skip

    def trained(device):
        torch.manual_seed(0)  # of dropout
        model = space.build(architecture, task).to(device)
        x, y = pixels.to(device), labels.to(device)
        data = Data(Split(x[:24], y[:24]), Split(x[24:], y[24:]), task)
        generator = torch.Generator(device).manual_seed(0)
        training = drain(train(model, data, recipe, recipe.attack(), generator))
        assert {w.device for w in training.last_weights.values()} == {x.device}
        report = [training.last.train_loss, training.last.clean_accuracy]
        return [*report, training.last.robust_accuracy], model.cpu().state_dict()

    report, weights = trained("cpu")
    with fake_cuda(bf16=precision == "bf16"):
        there = trained("cuda")
    assert there[0] == pytest.approx(report, rel=1e-4)
    for key, weight in weights.items():
        torch.testing.assert_close(there[1][key], weight)  # average pools have another layout
