"""Plain random nets: their layers, what plays a part in the hash, and what does not fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from metrics.attacks import FGSM
from metrics.cost import macs, parameters
from metrics.engine.folding import fast_copy
from metrics.robustness.accuracy import robust_accuracy
from search_spaces import FeedForward, InvalidArchitecture, Task

SPACE = FeedForward(units=(30, 50), channels=(4, 6))
SHAPES = [(3, 32, 32), (1, 28, 20), (1, 8, 8), (2, 5, 1), (1, 1, 1)]


def some(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def by_hand(choices, task):
    """Return parameters, multiply-accumulates and hidden layers, from the choices alone."""
    inputs, height, width = task.shape
    weights, work, biases = 0, 0, 0
    if choices["kind"] == "dense":
        sizes = [choices[f"units{i + 1}"] for i in range(choices["hidden_layers"])]
        features = inputs * height * width
        for size in sizes:
            weights, work = weights + features * size, work + features * size
            features, biases = size, biases + size
    else:
        sizes = [choices[f"channels{i + 1}"] for i in range(choices["conv_layers"])]
        for i, size in enumerate(sizes, start=1):
            kernel = inputs * size * choices[f"kernel{i}"] ** 2
            weights, work = weights + kernel, work + kernel * height * width
            inputs, biases = size, biases + size
            if height > 1 and width > 1:
                height, width = height // 2, width // 2
        features = inputs * height * width
    last = features * task.classes
    return weights + biases + last + task.classes, work + last, len(sizes)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_nets_learn_and_cost_what_they_do_by_hand(shape):
    task, rng, kinds = Task.plain(shape, 3), np.random.default_rng(0), set()
    for _ in range(12):
        architecture = SPACE.sample(rng)
        model = SPACE.build(architecture, task)
        logits = model(some(2, *shape))
        assert logits.shape == (2, 3)
        logits.sum().backward()
        assert all(p.grad is not None for p in model.parameters())
        count, work, hidden = by_hand(dict(architecture.choices), task)
        assert (parameters(model), macs(model, some(1, *shape))) == (count, work)
        names = [*(f"1.layer{i}" for i in range(1, hidden + 1)), ""]
        assert model.hidden_states == {name: i for i, name in enumerate(names, start=1)}
        kinds.add(architecture["kind"])
    assert kinds == {"dense", "conv"}


def test_the_defaults_are_the_papers_ranges():
    space = FeedForward()
    assert (min(space.hidden_layers), max(space.hidden_layers)) == (1, 4)
    assert (min(space.units), max(space.units)) == (30, 2000)
    assert (min(space.dropout), max(space.dropout)) == (0.0, 0.5)


@pytest.mark.parametrize(
    ("kind", "count", "idle"),
    [
        ("dense", {"hidden_layers": 2}, ["units3", "units4", "conv_layers", "kernel1", "dropout"]),
        ("conv", {"conv_layers": 2}, ["channels3", "kernel3", "hidden_layers", "units1"]),
    ],
)
def test_only_what_plays_a_part_is_in_the_hash(kind, count, idle):
    """One that plays none changes no weight either."""
    decisions, task = SPACE.decisions(), Task.plain((1, 8, 8), 2)
    choices = {name: values[0] for name, values in decisions.items()} | {"kind": kind, **count}
    one = SPACE.architecture(choices)
    weights = SPACE.build(one, task).state_dict()
    for name, values in decisions.items():
        if name == "kind":
            continue
        value = next(v for v in values if v != choices[name])
        other = SPACE.architecture({**choices, name: value})
        used = name not in idle and name in SPACE.graph(choices)
        assert (other.hash != one.hash) == used, name
        if not used:
            again = SPACE.build(other, task).state_dict()
            assert all(torch.equal(weights[k], again[k]) for k in weights)
    assert set(idle) <= set(decisions) - set(SPACE.graph(choices))


def test_the_hash_knows_the_net_and_not_the_lists():
    choices = {"kind": "dense", "hidden_layers": 1, "units1": 30}
    alone = FeedForward(kinds=("dense",), hidden_layers=(1,), units=(30,))
    assert set(alone.decisions()) == set(choices)
    wide = dict(SPACE.sample(np.random.default_rng(0)).choices) | choices
    assert alone.architecture(choices).hash == SPACE.architecture(wide).hash


def test_no_dropout_has_one_hash_however_it_is_written():
    space = FeedForward(kinds=("conv",), dropout=(0, 0.5))
    choices = dict(space.sample(np.random.default_rng(0)).choices)
    hashes = {space.architecture({**choices, "dropout": zero}).hash for zero in (0, 0.0)}
    assert len(hashes) == 1
    assert space == FeedForward(kinds=("conv",), dropout=(0.0, 0.5))


def test_dropout_is_of_the_last_convolution_in_training_alone():
    space = FeedForward(kinds=("conv",), conv_layers=(2,), channels=(64,), dropout=(0.5,))
    model = space.build(next(iter(space)), Task.plain((1, 16, 16), 2))
    seen = []
    model[1].head.register_forward_hook(lambda _m, x, _y: seen.append(x[0]))
    torch.manual_seed(0)
    x = some(50, 1, 16, 16)
    model.train()(x)
    model.eval()(x)
    trained, judged = seen
    dropped = (trained == 0) & (judged != 0)
    assert dropped.sum() / (judged != 0).sum() == pytest.approx(0.5, abs=0.02)
    assert torch.allclose(trained[~dropped], 2 * judged[~dropped])
    assert (trained != 0).any(1).all()  # unit by unit, not whole images


def linear(shape=(3, 6, 5)):
    space = FeedForward(kinds=("dense",), hidden_layers=(0,))
    return space.build(next(iter(space)), Task.plain(shape, 4), seed=1)


def test_without_hidden_layers_it_is_affine_in_the_images():
    """f(a x + (1 - a) y) = a f(x) + (1 - a) f(y), and as many weights as logits x pixels."""
    model = linear().double()
    x, y = some(2, 7, 3, 6, 5).double()
    for a in (-2.0, 0.3, 5.0):
        mixed = model(a * x + (1 - a) * y)
        torch.testing.assert_close(mixed, a * model(x) + (1 - a) * model(y))
    weight, bias = model.parameters()
    assert weight.shape == (4, 90)
    torch.testing.assert_close(model(x), x.flatten(1) @ weight.T + bias)
    assert model.hidden_states == {"": 1}


def test_units_play_no_part_without_hidden_layers():
    space = FeedForward(hidden_layers=(0, 2))
    assert {"units1", "units2"} <= set(space.decisions())
    choices = dict(space.sample(np.random.default_rng(0)).choices)
    choices |= {"kind": "dense", "hidden_layers": 0}
    hashes = {space.architecture({**choices, "units1": u}).hash for u in space.units}
    alone = FeedForward(kinds=("dense",), hidden_layers=(0,))
    assert set(alone.decisions()) == {"kind", "hidden_layers"}
    assert hashes == {next(iter(alone)).hash}
    assert hashes.isdisjoint(a.hash for a in FeedForward(kinds=("dense",), hidden_layers=(1,)))


def test_hashes_that_are_in_ledgers_stay():
    decisions = FeedForward().decisions()
    for place, written in ((0, "264c1926b2e615b6"), (-1, "9fc724a06b90d2e9")):
        choices = {name: values[place] for name, values in decisions.items()}
        assert FeedForward().architecture(choices).hash == written


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_a_fast_copy_and_an_attack_work_on_it(kind):
    space, task = replace(SPACE, kinds=(kind,)), Task.plain((1, 8, 8), 3)
    model = space.build(space.sample(np.random.default_rng(1)), task).eval()
    x = some(40, *task.shape)
    quick = fast_copy(model, x[:2])
    assert quick is not None
    assert torch.allclose(quick(x), model(x), atol=1e-5)
    with torch.no_grad():
        model[1].head.bias -= model(x).mean(0)  # untrained, it may answer one class alone
        labels = model(x).argmax(1)
    clean = robust_accuracy(model, x, labels, FGSM(epsilon=0.0))
    attacked = robust_accuracy(model, x, labels, FGSM(epsilon=0.5))
    assert clean.accuracy == 1
    assert attacked.accuracy < 1


@pytest.mark.parametrize(
    "settings",
    [{"kinds": ("lstm",)}, {"kinds": ()}, {"units": (30, 30)}, {"hidden_layers": (-1,)},
     {"hidden_layers": (False,)}, {"units": (0,)}, {"conv_layers": (0,)},
     {"channels": (1.5,)}, {"conv_layers": (True,)}, {"kernels": (4,)}, {"dropout": (1.0,)},
     {"dropout": (float("nan"),)}],
    ids=str,
)  # fmt: skip
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))}: expected distinct .*, got"):
        FeedForward(**settings)


@pytest.mark.parametrize("shape", [(0, 4, 4), (1, 0, 4)], ids=str)
def test_images_of_nothing_are_invalid(shape):
    with pytest.raises(InvalidArchitecture, match="expected images"):
        SPACE.build(SPACE.sample(np.random.default_rng(0)), Task.plain(shape, 2))


def test_convolutions_keep_the_sides_and_pools_halve_them():
    space = FeedForward(kinds=("conv",), conv_layers=(3,), channels=(4,), kernels=(5,))
    model = space.build(next(iter(space)), Task.plain((1, 28, 5), 2))
    sides = []
    for layer in ("layer1", "layer2", "layer3"):
        model[1].get_submodule(layer).register_forward_hook(
            lambda _m, _x, y: sides.append(tuple(y.shape[2:]))
        )
    model(some(2, 1, 28, 5))
    assert sides == [(14, 2), (7, 1), (7, 1)]
    assert isinstance(model[1].layer2[2], nn.MaxPool2d)
    assert len(model[1].layer3) == 2
