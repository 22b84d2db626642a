"""A copy that follows a model in training: the function of now, by weights written in place."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from metrics.answers import input_gradient, logits_of
from metrics.engine.following import follower
from search_spaces import SEARCH_SPACES, DepthChannels, Task

TASK = Task.plain((1, 12, 12), 5)


class Odd(nn.Module):
    """A shared norm, a norm that stands alone, an own parameter, a buffer, biases before norms."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.alone, self.plain = nn.BatchNorm2d(6, affine=False), nn.BatchNorm2d(6)
        self.own = nn.BatchNorm2d(6)
        self.third = nn.Conv2d(6, 6, 3, bias=False)
        self.scale = nn.Parameter(torch.full((1, 6, 1, 1), 1.5))
        self.register_buffer("shift", torch.full((1, 6, 1, 1), 0.25))
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        x = functional.relu(self.norm(self.first(x)))
        x = self.alone(self.second(x)) * self.scale + self.shift
        x = functional.relu(self.plain(self.third(self.own(functional.relu(x)))))
        return self.head(x.mean((2, 3)))


def nets():
    torch.manual_seed(0)
    yield "odd", Odd()
    for stem in ("small", "imagenet"):  # with and without a strided intake
        space = DepthChannels(depth=(3,), channels=(8,), stem=stem)
        yield stem, space.build(space.architecture({"depth": 3, "channels": 8}), TASK)
    cells = SEARCH_SPACES["nasnet"](blocks=2, cells=1, filters=4)
    yield "nasnet", cells.build(cells.sample(np.random.default_rng(0)), TASK)
    bare = nn.Sequential(nn.Conv2d(1, 6, 5, stride=2, padding=2), nn.ReLU(), nn.Flatten())
    yield "intake without a norm", nn.Sequential(*bare, nn.Linear(216, 5))
    yield "dense", nn.Sequential(nn.Flatten(), nn.Linear(144, 20), nn.ReLU(), nn.Linear(20, 5))


def pixels(n=8, seed=0):
    return torch.rand(n, 1, 12, 12, generator=torch.Generator().manual_seed(seed))


def trained_on(model, steps=3):
    """Take steps large enough to move every weight and statistic."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    labels = torch.arange(8) % 5
    model.train()
    for step in range(steps):
        optimizer.zero_grad()
        functional.cross_entropy(model(pixels(seed=step)), labels).backward()
        optimizer.step()


@pytest.mark.parametrize(("name", "model"), list(nets()), ids=[name for name, _ in nets()])
def test_a_refreshed_copy_has_the_models_logits_and_gradients(name, model):
    made = follower(model, pixels())
    assert made is not None
    where = [p.data_ptr() for p in made.module.parameters()]
    before = logits_of(made.module, pixels())
    trained_on(model)
    model.eval()
    expected = copy.deepcopy(model).double()
    x, labels = pixels().double(), torch.arange(8) % 5
    truth, gradient = logits_of(expected, x), input_gradient(expected, x, labels)
    assert (logits_of(made.module, pixels()) - truth).abs().max() > 0.01  # the one of before
    made.refresh()
    assert logits_of(made.module, pixels()).double() == pytest.approx(truth.numpy(), abs=1e-4)
    found = input_gradient(made.module, pixels(), labels).double()
    assert (found - gradient).norm() <= 1e-3 * gradient.norm()
    assert [p.data_ptr() for p in made.module.parameters()] == where  # nothing was made anew
    assert not torch.equal(before, logits_of(made.module, pixels()))
    assert made.agrees(pixels())


def test_the_model_is_left_as_it_is():
    model = Odd().train()
    before = copy.deepcopy(model.state_dict())
    made = follower(model, pixels())
    made.refresh()
    assert made.agrees(pixels())
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(p.requires_grad for p in made.module.parameters())


def test_a_copy_in_bfloat16_normalises_in_float32_and_keeps_statistics():
    space = DepthChannels(depth=(3,), channels=(8,), stem="small")
    task = Task(TASK.shape, TASK.classes, (0.9,), (0.01,))  # x - 0.9 has few digits in bfloat16
    model = space.build(space.architecture({"depth": 3, "channels": 8}), task)
    trained_on(model)
    made = follower(model, pixels(), torch.bfloat16)
    assert made is not None
    model.eval()
    made.refresh()
    near = 0.9 + 0.001 * pixels()  # less than one step of bfloat16 apart
    truth = logits_of(model, near)
    apart = (logits_of(made.module, near) - truth).abs().max()
    assert apart < 0.03 * truth.abs().max()
    assert (truth[0] - truth[1]).abs().max() > 0.0
    labels = torch.arange(8) % 5
    found, gradient = (input_gradient(m, pixels(), labels) for m in (made.module, model))
    assert found.dtype == torch.float32
    cosine = functional.cosine_similarity(found.flatten(1), gradient.flatten(1))
    assert cosine.min() > 0.98
    norms = follower(Odd(), pixels(), torch.bfloat16).module.get_submodule("own")
    assert norms.running_var.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_cannot_be_copied_has_none(dtype):
    class Branching(Odd):
        def forward(self, x):
            return super().forward(x) * (2 if x.mean() > 0.5 else 1)

    class Hooked(Odd):
        def __init__(self):
            super().__init__()
            self.first.register_forward_hook(lambda *_: None)

    assert follower(Branching(), pixels(), dtype) is None
    assert follower(Hooked(), pixels(), dtype) is None


def test_a_model_that_becomes_another_one_is_noticed():
    class Stage(Odd):
        factor = 1.0

        def forward(self, x):
            return super().forward(x) * self.factor

    model = Stage()
    made = follower(model, pixels())
    assert made.agrees(pixels())
    model.factor = 1.5
    assert not made.agrees(pixels())
