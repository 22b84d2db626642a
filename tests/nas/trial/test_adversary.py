"""The training attack on a copy: the images of the attack itself, up to rounding."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

import nas.trial.precision
from metrics.attacks import APGD, PGD, Attack
from nas.data.arrays import prepare
from nas.data.config import DataConfig, Limit
from nas.data.datasets import load_images
from nas.trial.adversary import Adversary, steps_in_epoch
from nas.trial.evaluation import evaluate
from nas.trial.precision import LEAST_INTENSITY, attack_precision, intensity
from nas.trial.recipe import Recipe
from nas.trial.training import drain, train
from nas.trial.trial import Trial
from search_spaces import DepthChannels, Task

TASK = Task.plain((1, 8, 8), 10)
RECIPE = Recipe(
    epochs=3, batch_size=32, epsilon=0.1, steps=3, adversarial_share=1.0, selection_images=20,
    attack_precision="float32",
)  # fmt: skip
CPU = torch.device("cpu")


def net(channels=8):
    space = DepthChannels(depth=(3,), channels=(channels,), stem="small")
    return space.build(space.architecture({"depth": 3, "channels": channels}), TASK)


@pytest.fixture(scope="module")
def data():
    config = DataConfig(limit=Limit(train=96, validation=40))
    return prepare(load_images(config), config)


def after(model, data, recipe=RECIPE):
    """Return an adversary at the beginning of an epoch, of a model that has moved since."""
    adversary = Adversary(recipe.attack(), model, data.train.images(slice(32)), recipe)
    drain(train(model, data, replace(recipe, epochs=1, early_steps=None), None, seeded()))
    model.train()
    adversary.begin_epoch(1)
    return adversary


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("batch_size", [None, 7])
@pytest.mark.parametrize("loss", ["cross-entropy", "trades"])
def test_images_are_those_of_the_attack_itself(loss, batch_size, data):
    recipe, model = replace(RECIPE, loss=loss), net()
    adversary = after(model, data, recipe)
    assert adversary.precision == "float32"
    x, y = data.train.images(slice(20)), data.train.labels[:20]
    before = {name: v.clone() for name, v in model.state_dict().items()}
    made = adversary(model, x, y, generator=seeded(), batch_size=batch_size)
    expected = recipe.attack()(model, x, y, generator=seeded(), batch_size=batch_size)
    assert ((made - expected).abs() < 1e-6).float().mean() > 0.99  # signs of gradients near 0
    assert (made - x).abs().max() <= recipe.epsilon + 1e-6
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_in_bfloat16_they_raise_the_loss_as_much(data):
    recipe, model = replace(RECIPE, attack_precision="bf16", steps=7), net(32)
    clean = replace(recipe, epochs=15, batch_size=16, selection_images=0)
    drain(train(model, data, clean, None, seeded()))
    adversary = Adversary(recipe.attack(), model, data.train.images(slice(32)), recipe)
    adversary.begin_epoch(1)
    assert adversary.precision == "bf16"
    x, y = data.train.images(), data.train.labels
    model.eval()

    def loss(images):
        with torch.no_grad():
            return functional.cross_entropy(model(images), y).item()

    exact = loss(recipe.attack()(model, x, y, generator=seeded()))
    found = loss(adversary(model, x, y, generator=seeded()))
    assert found - loss(x) == pytest.approx(exact - loss(x), rel=0.02)
    assert exact > loss(x) + 0.1


def test_a_model_without_a_copy_is_attacked_itself(data):
    model = net()
    model.register_forward_hook(lambda *_: None)
    adversary = after(model, data)
    assert adversary.precision == "as trained"
    x, y = data.train.images(slice(10)), data.train.labels[:10]
    expected = RECIPE.attack()(model, x, y, generator=seeded())
    assert torch.equal(adversary(model, x, y, generator=seeded()), expected)


def test_a_copy_that_is_left_behind_is_not_used(data):
    model = net()
    adversary = after(model, data)
    model.register_forward_hook(lambda module, inputs, output: 2 * output)
    adversary.begin_epoch(2)
    assert adversary.precision == "as trained"
    assert not adversary.steady


@pytest.mark.parametrize(
    ("early", "expected"), [(None, [None] * 5), (1, [1, 2, 4, 6, 7]), (7, [7] * 5)]
)
def test_steps_rise_over_the_epochs(early, expected):
    """1 + 6 (e - 1) / 4 by hand: 1, 2.5, 4, 5.5, 7; Python rounds halves to even."""
    recipe = Recipe(epochs=5, steps=7, early_steps=early)
    assert [steps_in_epoch(recipe, number) for number in range(1, 6)] == expected
    assert steps_in_epoch(replace(recipe, epochs=1), 1) == early


def test_early_epochs_attack_in_fewer_steps(data, monkeypatch):
    taken = []
    search = PGD.advance
    monkeypatch.setattr(
        PGD, "advance", lambda *a: (taken.append(a[2]), search(*a))[1]
    )  # step 0 begins an attack
    recipe = replace(RECIPE, early_steps=1, selection_images=0, batch_size=96)
    drain(train(net(), data, recipe, recipe.attack(), seeded()))
    assert taken == [0, 0, 1, 0, 1, 2]


def test_perturbations_are_carried_from_epoch_to_epoch(data):
    """Zero steps forward: the image is where the one of before ended, within a step of 1/127."""
    recipe = replace(RECIPE, carry_perturbations=True, step_size=1e-9)
    model = net()
    adversary = Adversary(recipe.attack(), model, data.train.images(slice(32)), recipe)
    adversary.begin_epoch(1)
    x, y = data.train.images(), data.train.labels
    rows = torch.tensor([5, 3, 90])
    adversary.at(rows, len(x))
    first = adversary(model, x[rows], y[rows], generator=seeded(1))
    other = torch.tensor([7, 8])
    adversary.at(other, len(x))
    adversary(model, x[other], y[other], generator=seeded(2))
    adversary.begin_epoch(2)
    kept = torch.tensor([90, 5])
    adversary.at(kept, len(x))
    again = adversary(model, x[kept], y[kept], generator=seeded(3), batch_size=1)
    assert (again - first[[2, 0]]).abs().max() <= recipe.epsilon / 127
    assert (first - x[rows]).abs().max() > 0.5 * recipe.epsilon  # random starts, not the images

    resumed = Adversary(recipe.attack(), model, data.train.images(slice(32)), recipe)
    resumed.load_state_dict(adversary.state_dict())
    resumed.begin_epoch(2)
    resumed.at(kept, len(x))
    same = resumed(model, x[kept], y[kept], generator=seeded(3), batch_size=1)
    assert torch.equal(same, again)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"early_steps": 0}, "early_steps: expected 1 to steps"),
        ({"early_steps": 8, "steps": 7}, "early_steps: expected 1 to steps"),
        ({"early_steps": 1, "adversary": "fgsm"}, "early_steps: expected an adversary that has"),
        ({"carry_perturbations": True, "adversary": "fgsm"}, "carry_perturbations: expected the"),
        ({"carry_perturbations": True, "loss": "trades"}, "carry_perturbations: expected the"),
        ({"carry_perturbations": True, "flip": True}, "carry_perturbations: .* got flip"),
        ({"attack_precision": "fp8"}, "attack_precision: expected one of"),
    ],
)
def test_bad_settings_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        Recipe(**settings)


@pytest.mark.parametrize(
    ("asked", "precision", "fast", "expected"),
    [
        ("auto", "auto", True, "bf16"),
        ("auto", "auto", False, "float32"),
        ("auto", "float32", True, "float32"),  # who asks for float32 gets it throughout
        ("auto", "bf16", False, "bf16"),
        ("float32", "bf16", True, "float32"),
        ("bf16", "auto", False, "bf16"),
    ],
)
def test_which_precision_an_attack_runs_in(asked, precision, fast, expected, monkeypatch):
    monkeypatch.setattr(nas.trial.precision, "fast_bf16", lambda device: fast)
    recipe = Recipe(attack_precision=asked, precision=precision)
    assert attack_precision(recipe, net(32), torch.zeros(1, 1, 8, 8)) == expected


def test_nets_of_little_arithmetic_are_attacked_in_float32(monkeypatch):
    monkeypatch.setattr(nas.trial.precision, "fast_bf16", lambda device: True)
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(),
        torch.nn.Linear(256, 10),
    )  # fmt: skip
    # 256 values of 9 products, 256 of the ReLU, 256 flattened, 10 of 256 products.
    x = torch.zeros(1, 1, 8, 8)
    assert intensity(layers, x) == (256 * 9 + 10 * 256) / (256 + 256 + 256 + 10)
    assert intensity(layers, x) < LEAST_INTENSITY
    assert attack_precision(Recipe(), layers, x) == "float32"


def test_a_trial_says_what_its_attack_ran_in():
    config = DataConfig(limit=Limit(train=40, validation=20))
    space = DepthChannels(depth=(2,), channels=(4,), stem="small")
    architecture = space.architecture({"depth": 2, "channels": 4})
    for asked, adversary, expected in (
        ("float32", "pgd", "float32"), ("bf16", "pgd", "bf16"), ("bf16", "none", None),
    ):  # fmt: skip
        recipe = replace(RECIPE, epochs=1, attack_precision=asked, adversary=adversary)
        found = evaluate(Trial(architecture, recipe, config, ()), load_images(config))
        assert found.status == "complete"
        assert found.environment.get("attack_precision") == expected


def test_an_attack_of_ones_own_sees_the_function_in_training(data):
    """It is given a model in ``eval()`` that answers as the one in training does."""
    apart = []

    class Mine(Attack):
        def perturb(self, model, x, labels, generator):
            with torch.no_grad():
                own = trained.training, trained.eval()(x), trained.train()
                apart.append(float((model(x) - own[1]).abs().max()))
            return x

    trained = net()
    recipe = replace(RECIPE, epochs=2, selection_images=0)
    drain(train(trained, data, recipe, Mine(), seeded()))
    assert len(apart) == 6
    assert max(apart) < 1e-4


def test_an_adversary_that_needs_more_classes_says_what_else_to_train_against():
    config = DataConfig(classes=(0, 1, 2), limit=Limit(train=32, validation=8))
    data, space = prepare(load_images(config), config), DepthChannels(depth=(2,), channels=(4,))
    model = space.build(space.architecture({"depth": 2, "channels": 4}), data.task)
    recipe = replace(RECIPE, adversary="apgd-t", epochs=1)
    said = "4 classes, got 3; use loss ce, or train against another adversary$"
    with pytest.raises(ValueError, match=said):
        drain(train(model, data, recipe, recipe.attack(), seeded()))
    drain(train(model, data, replace(recipe, adversary="apgd"), APGD(steps=2), seeded()))
