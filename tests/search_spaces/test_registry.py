"""Every search space keeps the same promises; depth-channels builds the paper's nets."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from fake_cuda import fake_cuda
from torch import fx, nn

from search_spaces import (
    SEARCH_SPACES,
    Answers,
    Architecture,
    DepthChannels,
    InvalidArchitecture,
    Model,
    SearchSpace,
    Task,
    space_class,
    space_of,
)

TASKS = [Task.plain((3, 32, 32), 10), Task((1, 28, 20), 2, mean=(0.3,), std=(0.2,))]
QUICK = {
    "resnet": {"depth": (18, 34)},
    "cifar-resnet": {
        "form": ("basic", "wide"), "depth": (8, 14, 10), "width": (1, 2), "dropout": (0.0, 0.3),
    },
    "nasnet": {"blocks": 3, "cells": 1, "filters": 4},
    "feedforward": {"units": (30, 100), "channels": (4, 8)},
    "vgg-lite": {"filters": (4, 8), "units": (16,)},
    "lenet": {"filters": (4,), "units": (16,), "relu": (False, True)},
    "torchvision": {"model": ("squeezenet1_1", "shufflenet_v2_x0_5")},
}  # fmt: skip
COLOUR = {"torchvision"}  # spaces whose nets take three channels alone
NAMELESS = {"torchvision"}  # that name no hidden states
every_space = pytest.mark.parametrize(
    "space", [cls(**QUICK.get(name, {})) for name, cls in SEARCH_SPACES.items()], ids=str
)


@every_space
def test_architecture_survives_json(space):
    architecture = space.sample(np.random.default_rng(0))
    text = json.dumps(architecture.to_dict())
    again = Architecture.from_dict(json.loads(text))
    assert again == architecture
    assert hash(again) == hash(architecture)
    assert space_of(again) == space


@every_space
def test_sampling_is_decided_by_the_generator(space):
    draws = [space.sample(np.random.default_rng(7)) for _ in range(2)]
    assert draws[0] == draws[1]
    rng = np.random.default_rng(7)
    assert len({space.sample(rng).hash for _ in range(20)}) > 1


@every_space
def test_suggest_asks_every_decision_once_in_order(space):
    asked = []

    class Recorder:
        def suggest_categorical(self, name, choices):
            asked.append(name)
            return choices[-1]

    architecture = space.suggest(Recorder())
    assert asked == list(space.decisions())
    assert architecture == space.suggest(Answers(dict(architecture.choices)))


@every_space
@pytest.mark.parametrize("task", TASKS, ids=["rgb", "grey"])
def test_models_map_images_to_logits_and_learn(space, task):
    architecture = space.sample(np.random.default_rng(1))
    if space.name in COLOUR and task.shape[0] != 3:
        with pytest.raises(InvalidArchitecture, match="3 channels"):
            space.build(architecture, task, seed=0)
        return
    model = space.build(architecture, task, seed=0)
    images = torch.rand(3, *task.shape, generator=torch.Generator().manual_seed(0))
    logits = model(images)
    assert logits.shape == (3, task.classes)
    logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@every_space
def test_the_seed_decides_the_weights_and_the_global_generators_are_left_alone(space):
    architecture = space.sample(np.random.default_rng(2))
    with fake_cuda():
        torch.cuda.manual_seed(3)
        before = [torch.get_rng_state(), torch.cuda.get_rng_state()]
        a, b, c = (space.build(architecture, TASKS[0], seed=s).state_dict() for s in (1, 1, 2))
        after = [torch.get_rng_state(), torch.cuda.get_rng_state()]
    assert all(map(torch.equal, before, after))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)


def test_the_seed_decides_the_weights_where_the_gpu_is_the_default_device():
    space = DepthChannels(depth=(2,), channels=(4,), stem="small")
    architecture = space.sample(np.random.default_rng(0))
    plain = space.build(architecture, TASKS[1], seed=1).state_dict()
    with fake_cuda():
        before = torch.cuda.get_rng_state()
        with torch.device("cuda"):
            there = space.build(architecture, TASKS[1], seed=1).state_dict()
        assert torch.equal(torch.cuda.get_rng_state(), before)
        assert {weight.device.type for weight in there.values()} == {"cuda"}
        assert all(torch.equal(plain[name], there[name].cpu()) for name in plain)


@every_space
def test_answers_outside_the_decisions_are_refused(space):
    name, choices = next(iter(space.decisions().items()))
    answers = dict(space.sample(np.random.default_rng(0)).choices)
    with pytest.raises(ValueError, match=name):
        space.architecture({**answers, name: "nothing of the kind"})
    with pytest.raises(ValueError, match="got also"):
        space.architecture({**answers, "moon": 1})
    with pytest.raises(ValueError, match="expected an answer"):
        space.architecture({k: v for k, v in answers.items() if k != name})


@every_space
def test_hidden_states_are_modules_in_the_order_of_their_calls(space):
    model = space.build(space.sample(np.random.default_rng(3)), TASKS[0]).eval()
    modules, called = dict(model.named_modules()), []
    for name in model.hidden_states:
        modules[name].register_forward_hook(lambda *_, name=name: called.append(name))
    if space.name in NAMELESS:
        assert model.hidden_states == {}
        return
    model(torch.rand(1, *TASKS[0].shape))
    assert called == list(model.hidden_states)
    assert called[-1] == ""
    layers = list(model.hidden_states.values())
    assert layers[0] >= 1
    assert layers == sorted(set(layers))


def test_hidden_states_of_depth_channels_are_the_tuples_and_the_output():
    space = DepthChannels(depth=(1, 3), channels=(4,), stem="small")
    deep = space.architecture({"depth": 3, "channels": 4})
    assert space.hidden_states(deep) == {"tuple1": 1, "tuple2": 2, "tuple3": 3, "": 4}
    built = space.build(deep, TASKS[0]).hidden_states
    assert list(built.items()) == [("1.tuple1", 1), ("1.tuple2", 2), ("1.tuple3", 3), ("", 4)]
    shallow = space.architecture({"depth": 1, "channels": 4})
    assert space.build(shallow, TASKS[0]).hidden_states == {"1.tuple1": 1, "": 2}


@dataclass(frozen=True, kw_only=True)
class Linear(SearchSpace):
    """A user's space that names no hidden states."""

    def decisions(self):
        return {"bias": (False, True)}

    def network(self, architecture, task):
        channels, height, width = task.shape
        linear = nn.Linear(channels * height * width, task.classes, bias=architecture["bias"])
        return nn.Sequential(nn.Flatten(), linear)


def test_a_space_need_not_name_hidden_states():
    architecture = next(iter(Linear()))
    assert Linear().hidden_states(architecture) == {}
    assert Linear().build(architecture, TASKS[0]).hidden_states == {}


def test_a_model_is_a_plain_sequential_with_hidden_states():
    """Same keys and same graph as the bare one; a copy keeps the states, a slice has none."""
    space = DepthChannels(depth=(2,), channels=(4,), stem="small")
    model = space.build(next(iter(space)), TASKS[1])
    assert isinstance(model, Model)
    bare = nn.Sequential(*model)
    assert list(model.state_dict()) == list(bare.state_dict())
    assert {key.partition(".")[0] for key in model.state_dict()} == {"0", "1"}
    assert fx.symbolic_trace(model).code == fx.symbolic_trace(bare).code
    again = copy.deepcopy(model)
    assert again.hidden_states == model.hidden_states
    assert again.hidden_states is not model.hidden_states
    assert model[1:].hidden_states == {}
    x = torch.rand(2, *TASKS[1].shape)
    assert torch.equal(model.eval()[1:](model[0](x)), bare(x))


def test_iteration_gives_every_combination_once():
    space = DepthChannels(depth=(1, 2, 4), channels=(8, 16))
    seen = [(a["depth"], a["channels"]) for a in space]
    assert seen == [(1, 8), (1, 16), (2, 8), (2, 16), (4, 8), (4, 16)]
    assert space.size() == 6
    assert len({a.hash for a in space}) == 6


def test_a_choice_is_as_the_space_writes_it():
    """A table read with pandas may say 2.0 for 2."""
    space = DepthChannels(depth=(2, 4), channels=(8, 16))
    given = space.architecture({"depth": 2.0, "channels": 16.0})
    assert given == space.architecture({"depth": 2, "channels": 16})
    assert [type(choice) for _, choice in given.choices] == [int, int]


def test_the_hash_knows_the_graph_and_not_the_lists():
    wide = DepthChannels(depth=(2, 4), channels=(8, 16))
    narrow = DepthChannels(depth=(4,), channels=(16,))
    other_stem = DepthChannels(depth=(4,), channels=(16,), stem="small")
    answers = {"depth": 4, "channels": 16}
    assert wide.architecture(answers).hash == narrow.architecture(answers).hash
    assert other_stem.architecture(answers).hash != narrow.architecture(answers).hash


@pytest.mark.parametrize(("stem", "side"), [("imagenet", 16), ("small", 32)])
def test_depth_channels_follows_the_paper(stem, side):
    """D convolutions of C channels, one 1x1, one linear layer; sides as the stem says."""
    space = DepthChannels(depth=(5,), channels=(12,), stem=stem)
    model = space.build(
        space.architecture({"depth": 5, "channels": 12}), Task.plain((3, 64, 64), 7)
    )
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [c.kernel_size[0] for c in convolutions] == [
        7 if stem == "imagenet" else 3,
        3,
        3,
        3,
        3,
        1,
    ]
    assert {c.out_channels for c in convolutions} == {12}
    kernel = 49 if stem == "imagenet" else 9
    by_hand = 3 * 12 * kernel + 4 * (12 * 12 * 9) + 5 * 2 * 12 + (12 * 12 + 12) + (12 * 7 + 7)
    assert sum(p.numel() for p in model.parameters()) == by_hand
    hidden = nn.Sequential(model[0], model[1].tuple1)(torch.rand(1, 3, 64, 64))
    assert hidden.shape == (1, 12, side, side)


def test_normalisation_is_inside_the_model():
    space = DepthChannels(depth=(2,), channels=(4,))
    architecture = space.architecture({"depth": 2, "channels": 4})
    x = torch.rand(2, 1, 16, 16)
    inside = space.build(architecture, Task((1, 16, 16), 3, (0.4,), (0.2,)), seed=3).eval()
    plain = space.build(architecture, Task.plain((1, 16, 16), 3), seed=3).eval()
    assert torch.equal(inside(x), plain((x - torch.tensor(0.4)) / torch.tensor(0.2)))


@pytest.mark.parametrize(
    "settings",
    [{"depth": ()}, {"depth": (0,)}, {"channels": (8, 8)}, {"channels": (1.5,)}, {"stem": "big"}],
    ids=str,
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValueError, match="expected"):
        DepthChannels(**settings)


def test_an_architecture_too_large_for_its_images_is_invalid():
    space = DepthChannels(depth=(1,), channels=(4,), stem="small")
    with pytest.raises(InvalidArchitecture, match="at least 2 x 2"):
        space.build(space.architecture({"depth": 1, "channels": 4}), Task.plain((1, 1, 8), 2))


class Wide(DepthChannels):
    """A user's subclass, with a network of its own."""

    def network(self, architecture, task):
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(task.classes))


def test_a_subclass_is_not_taken_for_its_parent():
    assert Wide.full_name().endswith(":Wide")
    assert next(iter(Wide())).hash != next(iter(DepthChannels())).hash


def test_unknown_spaces_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="depth-channels"):
        space_class("moon")
    with pytest.raises(ValueError, match="cannot be imported"):
        space_class("no_such_module:Space")
    with pytest.raises(ValueError, match="subclass"):
        space_class("pathlib:Path")


@pytest.mark.parametrize("channels", [1, 3])
def test_convolutions_are_built_in_channels_last(channels):
    """Also of one input channel, whose strides torch's own conversion leaves alone."""
    space = DepthChannels(depth=(2,), channels=(4,), stem="small")
    task = Task.plain((channels, 8, 8), 10)
    model = space.build(space.architecture({"depth": 2, "channels": 4}), task)
    weights = [p for p in model.parameters() if p.ndim == 4]
    assert [w.stride() for w in weights[:2]] == [(9 * channels, 1, 3 * channels, channels),
                                                 (36, 1, 12, 4)]  # fmt: skip
    assert model(torch.rand(2, channels, 8, 8)).shape == (2, 10)
