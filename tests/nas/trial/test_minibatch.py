"""Micro-batches: the gradient of the whole batch, with fewer images in the model at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import metrics
from metrics.attacks import ATTACKS, PGD
from metrics.stability.input_noise import INPUT_NOISE
from nas.data.arrays import Data, Split
from nas.data.config import DataConfig, Limit
from nas.data.datasets import load_images
from nas.trial.evaluation import evaluate
from nas.trial.minibatch import gradients
from nas.trial.recipe import Recipe
from nas.trial.runner import TrialRunner
from nas.trial.training import drain, train
from nas.trial.trial import Trial
from search_spaces import DepthChannels, FeedForward, Task

RECIPE = Recipe(
    epochs=2, batch_size=30, epsilon=0.1, steps=2, selection_images=20, flip=True, crop_padding=1,
    entropy_weight=0.5, label_smoothing=0.1, gradient_clip=0.5,
)  # fmt: skip
SETTINGS = {
    "square": {"queries": 5},
    "square-l2": {"queries": 5},
    "apgd": {"steps": 5},
    "apgd-t": {"steps": 5, "targets": 2},
    "fab": {"steps": 5, "targets": 2},
    "noise": {"draws": 3},
}


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(94, 1, 6, 6, generator=generator, dtype=torch.float64)
    labels = torch.arange(94) % 4
    task = Task.plain((1, 6, 6), 4)
    return Data(Split(pixels[:64], labels[:64]), Split(pixels[64:], labels[64:]), task)


def net(data):
    space = FeedForward(kinds=("conv",), channels=(6,), units=(30,), dropout=(0.0,))
    answers = {name: choices[0] for name, choices in space.decisions().items()}
    return space.build(space.architecture(answers), data.task, seed=1).double()


def seen_by(model):
    """Return a list that is told how many images every forward pass takes."""
    sizes = []
    model.register_forward_hook(lambda _module, inputs, _output: sizes.append(len(inputs[0])))
    return sizes


@pytest.mark.parametrize("loss", ["cross-entropy", "mse"])
@pytest.mark.parametrize("adversary", ["none", "pgd", "fgsm", "noise-cube"])
def test_without_batch_norm_weights_are_those_of_the_whole_batch(adversary, loss, data):
    smoothing = 0.1 if loss == "cross-entropy" else 0.0
    recipe = replace(RECIPE, adversary=adversary, loss=loss, label_smoothing=smoothing)
    found = []
    for micro_batch in (None, 8):  # batches of 30, in parts of 8, 8, 7 and 7, and one of 4
        model = net(data)
        generator = torch.Generator().manual_seed(3)
        training = drain(
            train(model, data, recipe, recipe.attack(), generator, micro_batch=micro_batch)
        )
        found.append((training, training.last_weights, generator.get_state()))
    (whole, weights, state), (parts, others, other_state) = found
    untrained = net(data).state_dict()
    for name, weight in weights.items():
        torch.testing.assert_close(others[name], weight, rtol=1e-5, atol=1e-7)  # float32 logits
        assert not torch.allclose(weight, untrained[name], rtol=1e-3, atol=1e-4) or "1" not in name
    assert parts.last.train_loss == pytest.approx(whole.last.train_loss, rel=1e-6)
    assert torch.equal(state, other_state)


def test_the_gradient_is_a_mean_over_images_and_not_over_parts(data):
    """Ten images in parts of 4, 3 and 3, against the gradients of single images."""
    recipe = replace(RECIPE, adversary="none")
    x, y = data.train.pixels[:10], data.train.labels[:10]
    model = net(data)
    loss = gradients(model, x, y, recipe, None, torch.Generator(), 4)
    got = [p.grad for p in model.parameters()]
    singles = []
    expected = [torch.zeros_like(p) for p in model.parameters()]
    for i in range(10):
        singles.append(gradients(model, x[i : i + 1], y[i : i + 1], recipe, None, None, None))
        for total, p in zip(expected, model.parameters(), strict=True):
            total += p.grad / 10
    assert loss.item() == pytest.approx(torch.stack(singles).mean().item(), rel=1e-6)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", [*ATTACKS, *INPUT_NOISE])
@pytest.mark.parametrize("labelled", [False, True])
def test_an_attack_in_parts_makes_the_same_images(name, labelled, data):
    attack = {**ATTACKS, **INPUT_NOISE}[name](epsilon=0.1, **SETTINGS.get(name, {}))
    x, y = data.train.pixels[:23], data.train.labels[:23] if labelled else None
    model, states, images = net(data), [], []
    sizes = seen_by(model)
    for batch_size in (None, 5):
        generator = torch.Generator().manual_seed(5)
        images.append(attack(model, x, y, generator=generator, batch_size=batch_size))
        states.append(generator.get_state())
        most = max(sizes, default=0)
        sizes.clear()
    torch.testing.assert_close(images[1], images[0], rtol=0, atol=1e-12)
    assert not torch.equal(images[0], x)
    assert torch.equal(*states)
    assert most <= 5


def test_an_attack_that_draws_for_a_batch_draws_for_every_part(data):
    class Mine(PGD):
        draws_by_image = False

        def perturb(self, model, x, labels, generator):
            return x + self.epsilon * torch.rand(x.shape, generator=generator, dtype=x.dtype) * 0.1

    x = data.train.pixels[:9] * 0.5
    images = Mine(epsilon=0.1)(net(data), x, generator=torch.Generator(), batch_size=4)
    moves = (images - x).flatten(1)
    assert len(moves) == 9
    assert len(moves.unique(dim=0)) == 9


@pytest.mark.parametrize("batch_size", [0, 2.5])
def test_a_bad_number_of_images_at_a_time_is_refused(batch_size, data):
    x = data.train.pixels[:3]
    with pytest.raises(ValueError, match=r"^batch_size: expected a number of images >= 1, got"):
        PGD()(net(data), x, batch_size=batch_size)
    with pytest.raises(ValueError, match=r"^micro_batch: expected a number of images >= 1, got 0"):
        drain(train(net(data), data, RECIPE, None, torch.Generator(), micro_batch=0))


def test_training_and_judging_take_no_more_images_at_a_time(data):
    model = net(data)
    sizes = seen_by(model)  # a model with hooks has no fast copy that they would miss
    drain(train(model, data, RECIPE, RECIPE.attack(), torch.Generator(), micro_batch=3))
    assert max(sizes) == 3


# ---------------------------------------------------------------------------------------- a trial


@pytest.fixture(scope="module")
def images():
    return load_images(DataConfig())


@pytest.fixture
def trial():
    space = DepthChannels(depth=(2,), channels=(4,), stem="small")  # it has batch norm
    chosen = (("clean", {}), ("pgd", {"epsilon": 0.1, "steps": 2}), ("psi", {"limit": 8}))
    return Trial(
        space.architecture({"depth": 2, "channels": 4}),
        Recipe(epochs=1, batch_size=64, epsilon=0.1, steps=2, selection_images=40),
        DataConfig(limit=Limit(train=128, validation=60)),
        tuple(metrics.METRICS[name](**settings) for name, settings in chosen),
    )


def numbers(evaluation):
    return {k: v for k, v in evaluation.scores.items() if not k.endswith("_seconds")}


def test_a_trial_takes_no_more_images_at_a_time_and_says_so(trial, images):
    sizes = []

    def note(module, inputs, _output):
        if isinstance(module, nn.Conv2d):
            sizes.append(len(inputs[0]))

    hook = nn.modules.module.register_module_forward_hook(note)  # and no fast copies
    try:
        evaluation = evaluate(trial, images, micro_batch=16)
    finally:
        hook.remove()
    assert evaluation.status == "complete"
    assert max(sizes) == 16
    assert evaluation.to_dict()["micro_batch"] == 16


def test_a_trial_without_them_is_as_it_was_and_equal_ones_are_equal(trial, images):
    plain, parts = evaluate(trial, images), evaluate(trial, images, micro_batch=16)
    assert "micro_batch" not in plain.to_dict()
    assert numbers(plain) != numbers(parts)  # batch norm
    assert numbers(evaluate(trial, images, micro_batch=16)) == numbers(parts)
    assert numbers(evaluate(trial, images, micro_batch=64)) == numbers(plain)
    runner = TrialRunner(trial, {trial.data.source: images}, device="cpu", threads=1)
    again = drain(runner.run(trial, micro_batch=16))
    assert (numbers(again), again.micro_batch) == (numbers(parts), 16)


def test_a_failed_trial_says_so_too(trial, images):
    wrong = replace(trial, recipe=replace(trial.recipe, learning_rate=1e38))
    evaluation = evaluate(wrong, images, micro_batch=16)
    assert evaluation.status == "diverged"
    assert evaluation.to_dict()["micro_batch"] == 16
