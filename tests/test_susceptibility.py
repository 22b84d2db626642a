"""Ψ against formulas, and against the reference's numbers (its acceptance cases 2, 7 and 9)."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from torch import nn

from metrics.susceptibility import (
    estimated_radius,
    lyapunov_exponent,
    rms,
    susceptibility,
    susceptibility_limit,
)
from search_spaces import DepthChannels, Task


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def linear(n=48, m=5, seed=0):
    weight = torch.randn(m, n, generator=generator(seed))
    model = nn.Sequential(nn.Flatten(), nn.Linear(n, m, bias=False))
    model[1].weight.data = weight
    return model, weight


# Case 2: 32 px, C = 32, batch of 8, batch BN, sign step, r = 1e-4. Tolerances of the reference.
@pytest.mark.parametrize(
    ("depth", "expected", "factor"),
    [(2, 0.75, 1.25), (4, 1.12, 1.25), (8, 2.24, 1.25), (16, 9.7, 1.25), (32, 104, 1.5),
     (64, 264, 1.8)],
)  # fmt: skip
def test_case_2_untrained_nets(depth, expected, factor):
    logs = []
    for seed in range(3):
        space = DepthChannels(depth=(depth,), channels=(32,))
        architecture = space.architecture({"depth": depth, "channels": 32})
        model = space.build(architecture, Task.plain((3, 32, 32), 101), seed=seed)
        noise = torch.randn(8, 3, 32, 32, generator=generator(seed))
        result = susceptibility(
            model, noise, radii=(1e-4,), step="sign", batch_norm="batch", generator=generator(seed)
        )
        logs.append(math.log(result.value))
    assert abs(sum(logs) / 3 - math.log(expected)) < math.log(factor)


def test_case_7_linear_model():
    """limit = sigma_max sqrt(N/M); the attack stays under it; RMS random ψ = |W|_F / sqrt(M)."""
    model, weight = linear()
    m, n = weight.shape
    x = torch.rand(2000, 1, 6, 8, generator=generator(1))
    top = torch.linalg.svdvals(weight.double())[0].item() * math.sqrt(n / m)
    limit = susceptibility_limit(model, x[:4])
    assert limit.tolist() == pytest.approx([top] * 4, rel=1e-4)
    attacked = susceptibility(model, x, radii=(1e-2,), generator=generator(2))
    assert attacked.psi.max() <= top * (1 + 1e-4)
    assert attacked.value > 0.9 * top
    random = susceptibility(model, x, radii=(1e-2,), steps=0, generator=generator(2))
    root_mean_square = random.psi.square().mean().sqrt().item()
    assert root_mean_square == pytest.approx(weight.norm().item() / math.sqrt(m), rel=0.05)


def test_case_9_worked_example():
    """The paper prints a distance of 0.4703; its own radius shows that 0.474342 is meant."""
    logits = torch.tensor([[2.1, 0.6, 0.1, -0.5, -1.1]], dtype=torch.float64)
    assert estimated_radius(logits, 1.0).item() == pytest.approx(0.474342, abs=1e-6)
    assert estimated_radius(logits, 25.0).item() == pytest.approx(0.0189737, abs=1e-7)


def test_case_9_toy_map():
    """x -> 2x mod 1 on the circle: .01 apart becomes .32 in 5 steps, λ = ln 2."""

    def distance(a, b):
        return min((a - b) % 1, (b - a) % 1)

    x, y = Fraction(37, 100), Fraction(38, 100)
    first = distance(x, y)
    for _ in range(5):
        x, y = 2 * x % 1, 2 * y % 1
    assert (first, distance(x, y)) == (Fraction(1, 100), Fraction(32, 100))
    found = lyapunov_exponent(float(first), float(distance(x, y)), 5)
    assert found == pytest.approx(math.log(2), abs=1e-12)


def test_psi_is_the_definition():
    """A model that triples its input: ψ is 3 for every δ; Ψ̂ is a geometric mean."""

    class Triple(nn.Module):
        def forward(self, x):
            return 3 * x

    class Halves(nn.Module):  # ψ is 8 for bright images and 2 for dark ones
        def forward(self, x):
            bright = x.flatten(1).mean(1).view(-1, 1, 1, 1) > 0.5
            return torch.where(bright, 8 * x, 2 * x)

    x = torch.cat([torch.full((3, 1, 4, 4), 0.1), torch.full((3, 1, 4, 4), 0.9)])
    assert susceptibility(Triple(), x, generator=generator()).value == pytest.approx(3, rel=1e-3)
    result = susceptibility(Halves(), x, generator=generator())
    assert result.value == pytest.approx(4, rel=1e-3)
    assert result.psi.shape == (3, 6)
    assert result.interval[0] < 4 < result.interval[1]


def test_every_delta_is_on_the_sphere():
    seen = []

    class Spy(nn.Module):
        def forward(self, x):
            seen.append(x.detach().clone())
            return x.flatten(1)[:, :3].sin()

    x = torch.rand(5, 1, 4, 4, generator=generator())
    susceptibility(Spy(), x, radii=(1e-2,), generator=generator())
    for perturbed in seen[1:]:
        assert rms(perturbed - x).flatten().tolist() == pytest.approx([1e-2] * 5, rel=1e-3)
    assert not torch.equal(seen[1], seen[-1])


def test_saturation_is_flagged():
    """Outputs that cannot move by more than a fixed length: ψ falls like 1/r."""

    class Saturated(nn.Module):
        def forward(self, x):
            return torch.tanh(1e6 * x.flatten(1)[:, :3])

    x = torch.full((4, 1, 4, 4), 0.0)
    assert susceptibility(Saturated(), x, generator=generator()).saturated
    model, _ = linear(n=16)
    assert not susceptibility(model, x, generator=generator()).saturated


def test_a_constant_model_is_flagged_not_averaged():
    class Constant(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :3] * 0 + 1

    result = susceptibility(Constant(), torch.rand(4, 1, 4, 4), radii=(1e-3,))
    assert (result.underflows, result.cancelled) == (4, 4)


def test_a_model_without_a_graph_is_flagged_too():
    class Detached(nn.Module):
        def forward(self, x):
            return torch.ones(len(x), 3)

    assert susceptibility(Detached(), torch.rand(4, 1, 4, 4), radii=(1e-3,)).underflows == 4


def test_a_nan_model_gives_nan():
    class Broken(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :3] * torch.nan

    assert math.isnan(susceptibility(Broken(), torch.rand(4, 1, 4, 4)).value)


@pytest.mark.parametrize("batch_norm", ["eval", "frozen", "batch"])
def test_the_model_is_left_as_found(batch_norm):
    space = DepthChannels(depth=(2,), channels=(4,))
    architecture = space.architecture({"depth": 2, "channels": 4})
    model = space.build(architecture, Task.plain((1, 16, 16), 3)).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    momenta = [m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    susceptibility(model, torch.rand(4, 1, 16, 16), radii=(1e-3,), batch_norm=batch_norm)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert [m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)] == momenta
    assert all(m.training for m in model.modules())


def test_frozen_statistics_uncouple_the_inputs():
    space = DepthChannels(depth=(3,), channels=(8,))
    architecture = space.architecture({"depth": 3, "channels": 8})
    model = space.build(architecture, Task.plain((1, 16, 16), 3))
    x = torch.rand(8, 1, 16, 16, generator=generator())
    runs = [
        susceptibility(
            model, x, radii=(1e-3,), batch_norm="frozen", batch_size=b, generator=generator()
        ).psi
        for b in (8, 4)
    ]
    assert torch.allclose(runs[0][:, :4], runs[1][:, :4], rtol=1e-3)


def test_the_generator_decides():
    model, _ = linear(n=16)
    x = torch.rand(4, 1, 4, 4, generator=generator())
    a, b, c = (susceptibility(model, x, steps=1, generator=generator(s)).value for s in (1, 1, 2))
    assert a == b != c


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"radii": ()}, "radii"),
        ({"radii": (0.1, -1)}, "radii"),
        ({"steps": -1}, "steps >= 0"),
        ({"step": "leap"}, "leap"),
        ({"batch_norm": "warm"}, "warm"),
    ],
)
def test_bad_settings_are_refused(settings, match):
    model, _ = linear(n=16)
    with pytest.raises(ValueError, match=match):
        susceptibility(model, torch.rand(2, 1, 4, 4), **settings)
    with pytest.raises(ValueError, match="at least one input"):
        susceptibility(model, torch.rand(0, 1, 4, 4))
