"""The limit r → 0 and the drift of hidden states, against closed forms and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from metrics.susceptibility import (
    drift,
    on_sphere,
    rms,
    sphere_attack,
    susceptibility,
    susceptibility_limit,
)
from search_spaces import DepthChannels, Task


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def grid_net(depth=3, channels=8, side=16):
    space = DepthChannels(depth=(depth,), channels=(channels,))
    architecture = space.architecture({"depth": depth, "channels": channels})
    return space.build(architecture, Task.plain((3, side, side), 5), seed=0)


# ------------------------------------------------------------------------------------------ limit


@pytest.mark.parametrize("method", ["exact", "krylov", "auto"])
def test_the_limit_is_that_of_the_jacobian(method):
    model = grid_net().eval()
    x = torch.randn(3, 3, 16, 16, generator=generator())
    expected = []
    for image in x:
        jacobian = torch.autograd.functional.jacobian(lambda v: model(v)[0], image[None])
        top = torch.linalg.svdvals(jacobian.reshape(5, -1).double())[0].item()
        expected.append(top * math.sqrt(3 * 16 * 16 / 5))
    found = susceptibility_limit(model, x, method=method, generator=generator(1))
    assert found.tolist() == pytest.approx(expected, rel=1e-4)


def test_krylov_is_exact_once_its_space_is_and_a_lower_bound_before():
    """Five outputs: five rounds; more find nothing new and do no harm."""
    model, x = grid_net().eval(), torch.randn(4, 3, 16, 16, generator=generator())
    exact = susceptibility_limit(model, x, method="exact")
    found = [
        susceptibility_limit(model, x, method="krylov", rounds=k, generator=generator(1))
        for k in (1, 2, 5, 9)
    ]
    assert (found[0] < exact * (1 - 1e-3)).all()
    for few, more in zip(found, found[1:], strict=False):
        assert (more >= few * (1 - 1e-5)).all()
    assert torch.allclose(found[2], exact, rtol=1e-4)
    assert torch.allclose(found[3], exact, rtol=1e-4)


def test_batches_play_no_part_in_the_limit():
    model, x = grid_net(), torch.randn(5, 3, 16, 16, generator=generator())
    whole, single = (
        susceptibility_limit(
            model, x, method="krylov", batch_norm="frozen", batch_size=b, generator=generator(1)
        )
        for b in (5, 1)
    )
    assert torch.allclose(whole, single, rtol=1e-3)


class Constant(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :3] * 0 + 1


class Detached(nn.Module):
    def forward(self, x):
        return torch.ones(len(x), 3)


class Broken(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :3] * torch.nan


@pytest.mark.parametrize("method", ["exact", "krylov"])
def test_the_limit_of_odd_models(method):
    x = torch.rand(2, 1, 4, 4)
    for model in (Constant(), Detached()):
        assert susceptibility_limit(model, x, method=method).tolist() == [0, 0]
    assert susceptibility_limit(Broken(), x, method=method).isnan().all()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"method": "guess"}, "guess"),
        ({"rounds": 0}, "rounds >= 1"),
        ({"batch_norm": "batch"}, "eval or frozen"),
        ({"batch_norm": "warm"}, "warm"),
    ],
)
def test_bad_limits_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        susceptibility_limit(Constant(), torch.rand(2, 1, 4, 4), **settings)


# ------------------------------------------------------------------------------------------ drift


class Doubling(nn.Module):
    """Each layer doubles, the head shrinks by 8."""

    def __init__(self, depth=4):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(1, 1, 1, bias=False) for _ in range(depth))
        self.head = nn.Linear(16, 16, bias=False)
        for layer in self.layers:
            layer.weight.data.fill_(2)
        self.head.weight.data = torch.eye(16) / 8

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.head(x.flatten(1))


def test_growth_and_both_exponents():
    model, x = Doubling(), torch.rand(3, 1, 4, 4, generator=generator())
    moved = x + on_sphere(torch.randn(x.shape, generator=generator(1)), 1e-2)
    found = drift(model, x, moved)
    assert found.states == ("input", "layers.0", "layers.1", "layers.2", "layers.3", "output")
    assert found.layers == (0, 1, 2, 3, 4, 5)
    assert found.distance.shape == (6, 3)
    assert found.distance[0].tolist() == pytest.approx([1e-2] * 3, rel=1e-3)
    assert found.growth == pytest.approx((1, 2, 4, 8, 16, 2), rel=1e-3)
    assert found.slope == pytest.approx(math.log(2), rel=1e-3)
    assert found.lyapunov == pytest.approx(math.log(2) / 5, rel=1e-3)
    assert found.cancelled == 0


def test_the_space_names_the_states():
    model = grid_net(depth=3)
    x = torch.randn(4, 3, 16, 16, generator=generator())
    moved = sphere_attack(model, x, 1e-3, generator=generator(1))
    found = drift(model, x, moved)
    assert found.states == ("input", "tuple1", "tuple2", "tuple3", "output")
    assert found.layers == (0, 1, 2, 3, 4)
    model.eval()
    with torch.no_grad():  # by hand
        states = [(x, moved)]
        for i in range(3):
            layer = dict(model.named_modules())[f"1.tuple{i + 1}"]
            states.append(tuple(layer(v) for v in states[-1]))
        states.append((model(x), model(moved)))
    for row, (a, b) in zip(found.distance, states, strict=True):
        assert torch.allclose(row.float(), rms(b - a).flatten(), rtol=1e-3)
    psi = susceptibility(model, x, radii=(1e-3,), generator=generator(1))
    assert found.growth[-1] == pytest.approx(psi.value, rel=0.01)


def test_states_are_taken_before_anything_writes_over_them():
    """torchvision's ReLUs work in place: a convolution's output is negative somewhere."""
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.ReLU(inplace=True), nn.Flatten())
    model[0].weight.data = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)
    x = torch.rand(2, 1, 3, 3, generator=generator()) + 0.1
    found = drift(model, x, x + 0.01, states={"0": 1, "": 1})
    assert found.distance[1].tolist() == pytest.approx([0.01] * 2, rel=1e-3)
    assert found.distance[2].tolist() == pytest.approx([0.01 / math.sqrt(2)] * 2, rel=1e-3)


def test_any_model_through_hooks():
    """Without names: every module that holds a weight matrix, in the order of the calls."""

    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(4, 3)
            self.norm = nn.BatchNorm2d(1)
            self.first = nn.Conv2d(1, 1, 3)

        def forward(self, x):
            return self.last(functional.relu(self.norm(self.first(x))).flatten(1))

    model = Backwards()
    x = torch.rand(3, 1, 4, 4, generator=generator())
    found = drift(model, x, x + 1e-3)
    assert found.states == ("input", "first", "output")
    assert found.layers == (0, 1, 2)
    assert all(not m._forward_hooks for m in model.modules())
    assert all(m.training for m in model.modules())


def test_a_model_without_layers_has_input_and_output():
    class Sine(nn.Module):
        def forward(self, x):
            return x.flatten(1).sin()

    x = torch.full((2, 1, 2, 2), 0.0)
    found = drift(Sine(), x, x + 1e-3)
    assert found.states == ("input", "output")
    assert found.lyapunov == found.slope == pytest.approx(0, abs=1e-3)


def test_batches_play_no_part_and_frozen_statistics_are_the_clean_ones():
    model, x = grid_net(), torch.randn(6, 3, 16, 16, generator=generator())
    moved = x + on_sphere(torch.randn(x.shape, generator=generator(1)), 1e-2)
    whole, single = (
        drift(model, x, moved, batch_norm="frozen", batch_size=b).distance for b in (6, 1)
    )
    assert torch.allclose(whole, single, rtol=1e-3)
    assert not torch.allclose(whole, drift(model, x, moved).distance, rtol=0.1)


def test_odd_models_give_the_right_value_or_a_flag():
    x = torch.rand(2, 1, 4, 4, generator=generator())
    still = drift(Constant(), x, x + 1e-3)
    assert still.cancelled == 2
    assert still.distance[-1].tolist() == [0, 0]
    assert math.isnan(drift(Broken(), x, x + 1e-3).lyapunov)
    unmoved = drift(Doubling(), x, x.clone())
    assert unmoved.cancelled == unmoved.distance.numel()


def test_bad_drifts_are_refused():
    x = torch.rand(2, 1, 4, 4)
    with pytest.raises(ValueError, match="as many images"):
        drift(Doubling(), x, x[:1])
    with pytest.raises(ValueError, match="at least one"):
        drift(Doubling(), x[:0], x[:0])
    with pytest.raises(ValueError, match=r"layers\.0.*got \['nowhere'\]"):
        drift(Doubling(), x, x, states={"nowhere": 1})

    class Unused(Doubling):
        def forward(self, x):
            return self.head(x.flatten(1))

    with pytest.raises(ValueError, match="are called"):
        drift(Unused(), x, x, states={"layers.0": 1, "": 2})
    model = nn.Sequential(nn.LSTM(4, 3, batch_first=True))
    with pytest.raises(ValueError, match="tensor"):
        drift(model, torch.rand(2, 4, 4), torch.rand(2, 4, 4), states={"0": 1})
