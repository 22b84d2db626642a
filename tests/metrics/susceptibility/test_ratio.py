"""Ψ against formulas (acceptance cases 7 and 9 of the reference among them)."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import partial

import pytest
import torch
from torch import nn

from metrics.susceptibility import (
    Ascent,
    estimated_radius,
    log_radii,
    lyapunov_exponent,
    rms,
    robustness_radius,
    sphere_attack,
    susceptibility,
    susceptibility_limit,
)
from metrics.susceptibility.normalisation import normalising
from search_spaces import DepthChannels, Task


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def grid_net(depth, channels, *, side, grey=False, classes=3, seed=0):
    space = DepthChannels(depth=(depth,), channels=(channels,))
    architecture = space.architecture({"depth": depth, "channels": channels})
    task = Task.plain((1 if grey else 3, side, side), classes)
    return space.build(architecture, task, seed=seed)


def linear(n=48, m=5, seed=0):
    weight = torch.randn(m, n, generator=generator(seed))
    model = nn.Sequential(nn.Flatten(), nn.Linear(n, m, bias=False))
    model[1].weight.data = weight
    return model, weight


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
    susceptibility(Spy(), x, radii=(1e-2,), fast=False, batch_size=5, generator=generator())
    assert len(seen) == 1 + 5 + 1
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


@pytest.mark.parametrize("batch_norm", ["eval", "frozen"])
def test_batches_play_no_part(batch_norm):
    """The draws are each input's own, and statistics of one clean batch uncouple the inputs."""
    model = grid_net(3, 8, side=16, grey=True)
    x = torch.rand(8, 1, 16, 16, generator=generator())
    runs = [
        susceptibility(
            model,
            x,
            radii=(1e-3, 1e-2),
            batch_norm=batch_norm,
            batch_size=b,
            generator=generator(1),
        ).psi
        for b in (16, 3, 1)
    ]
    assert torch.allclose(runs[0], runs[1], rtol=1e-3)
    assert torch.allclose(runs[0], runs[2], rtol=1e-3)


@pytest.mark.parametrize("n", [4, 16])
def test_frozen_statistics_are_those_of_the_batch(n):
    """Not torch's running ones, whose variance is larger by n / (n - 1) where maps are 1 x 1."""
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8),
        nn.BatchNorm1d(8), nn.Linear(8, 3),
    )  # fmt: skip
    x = torch.rand(n, 1, 4, 4, generator=generator())
    with torch.no_grad(), normalising(model, x, "batch"):
        expected = model(x)
    with torch.no_grad(), normalising(model, x, "frozen"):
        assert not any(module.training for module in model.modules())
        assert torch.allclose(model(x), expected, atol=1e-5)


@pytest.mark.parametrize("batch_norm", ["eval", "frozen", "batch"])
def test_a_model_that_writes_to_its_input(batch_norm):
    class Writing(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(1)

        def forward(self, x):
            return self.norm(x.sub_(0.5).div_(0.1)).flatten(1)[:, :3]

    model, x = Writing(), torch.rand(6, 1, 4, 4, generator=generator())
    before = x.clone()
    found = susceptibility(model, x, radii=(1e-3,), batch_norm=batch_norm, generator=generator(1))
    assert torch.equal(x, before)

    class Copying(Writing):
        def forward(self, x):
            return super().forward(x.clone())

    same = susceptibility(
        Copying(), x, radii=(1e-3,), batch_norm=batch_norm, generator=generator(1)
    )
    assert found.value == pytest.approx(same.value, rel=1e-5)


def test_the_limit_is_the_generators():
    model = grid_net(2, 8, side=16, grey=True, classes=101)
    x = torch.rand(3, 1, 16, 16, generator=generator())
    state = torch.get_rng_state()
    found = [
        susceptibility(
            model, x, radii=(1e-3,), limit=True, batch_norm="eval", generator=generator(s)
        )
        for s in (1, 1)
    ]
    assert found[0].limit == found[1].limit
    assert torch.equal(torch.get_rng_state(), state)


def test_nan_under_attack_is_not_withstood():
    class Falls(nn.Module):
        def forward(self, x):
            flat = x.flatten(1)[:, :3]
            return torch.where(flat == 0.5, flat, torch.nan)

    x = torch.full((4, 1, 4, 4), 0.5)
    assert susceptibility(Falls(), x, radii=(1e-3,), generator=generator()).flipped.all()


def test_one_radius_cannot_tell_saturation():
    model, _ = linear(n=16)
    x = torch.rand(4, 1, 4, 4)
    assert susceptibility(model, x, radii=(1e-3,)).saturated is None
    assert susceptibility(model, x, radii=(1e-3, 1e-2)).saturated is False


def test_under_inference_mode():
    model, _ = linear(n=16)
    x = torch.rand(4, 1, 4, 4, generator=generator())
    expected = susceptibility(model, x, generator=generator(1)).value
    with torch.inference_mode():
        assert susceptibility(model, x, generator=generator(1)).value == expected
        moved = sphere_attack(model, x, 1e-3, generator=generator(1))
        made = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    assert rms(moved - x).flatten().tolist() == pytest.approx([1e-3] * 4, rel=1e-3)
    for function in (susceptibility, partial(sphere_attack, radius=1e-3)):
        with pytest.raises(ValueError, match="ordinary parameters"):
            function(made, x)


def test_outputs_of_one_number():
    class Sum(nn.Module):
        def forward(self, x):
            return 2 * x.flatten(1).sum(dim=1)

    x = torch.rand(4, 1, 4, 4, generator=generator())
    expected = 2 * 16  # sigma_max = 2 sqrt(16), times sqrt(16 / 1)
    found = susceptibility(Sum(), x, radii=(1e-2,), limit=True, generator=generator(1))
    assert found.limit == pytest.approx(expected, rel=1e-4)
    assert found.value == pytest.approx(expected, rel=0.01)


def test_batch_statistics_couple_the_inputs():
    model = grid_net(3, 8, side=16, grey=True)
    x = torch.rand(8, 1, 16, 16, generator=generator())
    whole, half = (
        susceptibility(
            model, x, radii=(1e-3,), batch_norm="batch", batch_size=b, generator=generator(1)
        ).psi
        for b in (8, 4)
    )
    assert not torch.allclose(whole[:, :4], half[:, :4], rtol=1e-2)


def test_one_batched_call_is_the_plain_loop_over_radii_and_inputs():
    """Written out from equation 1, one input at one radius at a time."""
    model = grid_net(4, 8, side=16, grey=True)
    x = torch.randn(6, 1, 16, 16, generator=generator())
    radii = log_radii(1e-4, 1e-2, 3)
    with normalising(model, x, "frozen"):
        found = susceptibility(model, x, radii=radii, generator=generator(1))
        draws = generator(1)
        starts = [torch.randn(image.shape, generator=draws) for image in x]
        logs = []
        for radius in radii:
            for image, start in zip(x.split(1), starts, strict=True):
                clean = model(image).detach()
                delta = start[None] * radius / start.square().mean().sqrt()
                for _ in range(5):
                    delta.requires_grad_()
                    length = (model(image + delta) - clean).square().mean().sqrt()
                    (g,) = torch.autograd.grad(length, delta)
                    moved = delta.detach() + radius * g / g.square().mean().sqrt()
                    delta = moved * radius / moved.square().mean().sqrt()
                change = (model(image + delta).double() - clean.double()).square().mean().sqrt()
                logs.append(math.log(change.item() / delta.double().square().mean().sqrt().item()))
    looped = torch.tensor(logs).view(3, 6).exp()
    assert found.value == pytest.approx(math.exp(sum(logs) / len(logs)), rel=0.01)
    assert torch.allclose(found.psi.float(), looped, rtol=0.05)


def test_every_radius_starts_from_the_same_direction():
    model, _ = linear(n=16)
    x = torch.rand(4, 1, 4, 4, generator=generator())
    both = susceptibility(model, x, radii=(1e-3, 1e-2), steps=0, generator=generator(1))
    assert torch.allclose(both.psi[0], both.psi[1], rtol=1e-3)
    alone = susceptibility(model, x, radii=(1e-2,), steps=0, generator=generator(1))
    assert torch.allclose(both.psi[1], alone.psi[0], rtol=1e-6)


def test_restarts_keep_the_best_and_never_weaken_the_first():
    model = grid_net(3, 8, side=16, grey=True)
    x = torch.rand(8, 1, 16, 16, generator=generator())
    one, three = (
        susceptibility(model, x, radii=(1e-3,), steps=0, restarts=k, generator=generator(1))
        for k in (1, 3)
    )
    assert three.value > one.value
    first = susceptibility(model, x[:1], radii=(1e-3,), steps=0, generator=generator(1))
    again = susceptibility(model, x[:1], radii=(1e-3,), steps=0, restarts=3, generator=generator(1))
    assert (again.psi >= first.psi * (1 - 1e-6)).all()


def test_rows_of_radii_and_restarts_are_not_mixed_up():
    model = grid_net(3, 8, side=16, grey=True)
    x = torch.rand(4, 1, 16, 16, generator=generator())
    radii = (1e-4, 1.0)
    settings = {"steps": 0, "restarts": 3}
    both = susceptibility(model, x, radii=radii, generator=generator(1), **settings)
    for row, radius in zip(both.psi, radii, strict=True):
        alone = susceptibility(model, x, radii=(radius,), generator=generator(1), **settings)
        assert torch.allclose(row, alone.psi[0], rtol=1e-4)


@pytest.mark.parametrize("step", ["rel", "norm", "sign", "adam"])
def test_every_step_rule_climbs(step):
    """On a linear model, to most of sigma_max, and no further; random starts reach a third."""
    model, weight = linear()
    m, n = weight.shape
    top = torch.linalg.svdvals(weight.double())[0].item() * math.sqrt(n / m)
    x = torch.rand(50, 1, 6, 8, generator=generator(1))
    climbed = susceptibility(
        model, x, radii=(1e-3,), step=step, learning_rate=1e-3, generator=generator(2)
    ).psi
    assert climbed.log().mean().exp() > (0.9 if step in ("rel", "norm") else 0.6) * top
    assert climbed.max() <= top * (1 + 1e-4)


def test_adam_is_torchs():
    weight = torch.randn(3, 16, generator=generator())
    delta = torch.nn.Parameter(torch.randn(1, 1, 4, 4, generator=generator(1)))
    optimiser = torch.optim.Adam([delta], lr=0.01)
    move = Ascent(step="adam", learning_rate=0.01)._rule()
    ours = delta.detach().clone()
    for k in range(4):
        gradient = (weight[k % 3] + k).view(1, 1, 4, 4)
        delta.grad = -gradient  # torch descends
        optimiser.step()
        ours = ours + move(gradient / 4, torch.ones(1), torch.full((1,), 4.0))
        assert torch.allclose(ours, delta.detach(), atol=1e-6)


def test_starts():
    shape = torch.Size((1, 4, 4))
    corners = Ascent(start="sign", restarts=2).directions(shape, generator())
    assert corners.shape == (2, 1, 4, 4)
    assert set(corners.flatten().tolist()) == {-1.0, 1.0}
    assert Ascent().directions(shape, generator()).unique().numel() == 16


@pytest.mark.parametrize("law", ["log-uniform", "uniform"])
def test_radii_drawn_for_each_input(law):
    model, _ = linear(n=16)
    x = torch.rand(400, 1, 4, 4, generator=generator())
    result = susceptibility(
        model, x, radii=(1e-4, 1e-3, 1e-2), law=law, steps=0, generator=generator(1)
    )
    assert result.radii.shape == (3, 400)
    assert result.radii.min() >= 1e-4 and result.radii.max() <= 1e-2  # noqa: PT018
    place = result.radii.log() if law == "log-uniform" else result.radii
    low, high = (math.log(1e-4), math.log(1e-2)) if law == "log-uniform" else (1e-4, 1e-2)
    share = (place - low) / (high - low)
    for k in range(3):  # a third each, evenly filled
        assert share[k].min() >= k / 3 and share[k].max() <= (k + 1) / 3  # noqa: PT018
        assert share[k].mean().item() == pytest.approx((k + 0.5) / 3, abs=0.02)


def test_the_length_that_counts_is_what_the_model_saw():
    """float32 rounds x + δ: at r = 1e-7 beside 1.0, |δ| as asked and as seen differ by far."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 16, bias=False))
    model[1].weight.data = torch.eye(16)
    x = torch.ones(4, 1, 4, 4)
    result = susceptibility(model, x, radii=(1e-7,), steps=0, generator=generator())
    assert result.psi.flatten().tolist() == pytest.approx([1.0] * 4, rel=1e-5)


def test_float64_resolves_what_float32_cancels():
    class Offset(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(3.0))

        def forward(self, x):
            return self.scale * x.flatten(1)[:, :4] + 1000

    model = Offset()
    x = torch.rand(4, 1, 4, 4, generator=generator())
    coarse, fine = (
        susceptibility(model, x, radii=(1e-4,), float64=f, generator=generator(1))
        for f in (False, True)
    )
    assert (coarse.cancelled, fine.cancelled) == (4, 0)
    assert fine.value == pytest.approx(6, rel=1e-3)  # 3 sqrt(16 / 4): all of δ in four pixels
    assert model.scale.dtype == torch.float32


def test_flipped_gives_the_post_attack_accuracy():
    """Logits (x0, 0.5) flip exactly where δ takes x0 below one half."""

    class Threshold(nn.Module):
        def forward(self, x):
            first = x.flatten(1)[:, :1]
            return torch.cat([first, torch.full_like(first, 0.5)], dim=1)

    x = torch.full((2, 1, 1, 1), 0.6)
    x[1] = 0.9
    far = susceptibility(Threshold(), x, radii=(0.05, 0.2), steps=0, restarts=8)
    assert not far.flipped[0].any()
    assert set(far.flipped[1].tolist()) <= {True, False}
    assert not far.flipped[1, 1]
    moved = sphere_attack(Threshold(), x, 0.2, generator=generator())
    assert rms(moved - x).flatten().tolist() == pytest.approx([0.2, 0.2], rel=1e-4)


def test_the_limit_comes_with_it():
    model, weight = linear()
    top = torch.linalg.svdvals(weight.double())[0].item() * math.sqrt(48 / 5)
    x = torch.rand(3, 1, 6, 8, generator=generator())
    assert susceptibility(model, x, radii=(1e-2,), limit=True).limit == pytest.approx(top, rel=1e-4)
    assert susceptibility(model, x, radii=(1e-2,)).limit is None


def test_passes_are_counted():
    seen = []

    class Counting(nn.Module):
        def forward(self, x):
            seen.append(len(x))
            return x.flatten(1)[:, :3].sin()

    x = torch.rand(5, 1, 4, 4)
    result = susceptibility(
        Counting(), x, radii=(1e-3, 1e-2), restarts=2, fast=False, batch_size=20
    )
    rows = 2 * 2 * 5
    assert sum(seen) == 5 + rows * 6
    assert result.passes == sum(seen) + rows * 5


def test_a_batch_of_one_is_flagged():
    model = grid_net(2, 4, side=16, grey=True)
    x = torch.rand(1, 1, 16, 16, generator=generator())
    for mode in ("batch", "frozen"):
        with pytest.warns(UserWarning, match="statistics of 1 inputs: expected at least 4"):
            assert susceptibility(model, x, radii=(1e-3,), batch_norm=mode).few
    assert not susceptibility(model, x, radii=(1e-3,)).few


def test_no_batch_is_left_with_the_rest():
    """Nine inputs at eight a time are five and four, not eight and one."""
    model = grid_net(2, 4, side=16, grey=True)
    nine = torch.rand(9, 1, 16, 16, generator=generator())
    settings = {"radii": (1e-3,), "batch_norm": "batch", "generator": generator(1)}
    found = susceptibility(model, nine, batch_size=8, **settings)
    assert not found.few
    first = susceptibility(
        model, nine[:5], radii=(1e-3,), batch_norm="batch", generator=generator(1)
    )
    assert torch.allclose(found.psi[:, :5], first.psi, rtol=1e-4)
    with pytest.warns(UserWarning, match="fewer than 4 inputs"):
        assert susceptibility(model, nine, batch_size=3, **settings).few


def test_norms_without_statistics_are_never_batched_over_radii():
    """They take their batch's in eval() too: each radius must be a batch of its own."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten(),
        nn.Linear(16, 3),
    )  # fmt: skip
    x = torch.rand(4, 1, 4, 4, generator=generator())
    alone = [
        susceptibility(model, x, radii=(r,), generator=generator(1)).psi[0] for r in (1e-3, 1e-1)
    ]
    both = susceptibility(model, x, radii=(1e-3, 1e-1), generator=generator(1))
    assert torch.allclose(both.psi, torch.stack(alone), rtol=1e-4)


def test_one_nan_input_is_counted():
    class Partly(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :3].sqrt()  # NaN below 0

    x = torch.full((4, 1, 4, 4), 0.5)
    x[2] = -0.5
    result = susceptibility(Partly(), x, radii=(1e-3, 1e-2), generator=generator())
    assert result.nonfinite == 2
    assert math.isnan(result.value)
    assert result.psi[:, [0, 1, 3]].isfinite().all()


def test_the_radius_is_per_input_mean_and_minimum():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    model[1].weight.data = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0]])
    x = torch.tensor([0.2, 0.6]).view(2, 1, 1, 1).expand(2, 1, 2, 2).contiguous()
    found = robustness_radius(model, x, 2.0)
    assert found.radius.tolist() == pytest.approx([0.05, 0.15])  # (0.2 - 0) / sqrt(4) / 2
    assert (found.mean, found.minimum) == pytest.approx((0.1, 0.05))
    with pytest.raises(ValueError, match="classes >= 2"):
        estimated_radius(torch.rand(3, 1), 1.0)


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
        ({"learning_rate": 0}, "learning_rate > 0"),
        ({"restarts": 0}, "restarts >= 1"),
        ({"start": "here"}, "here"),
        ({"law": "bent"}, "bent"),
        ({"law": "uniform", "radii": (0.1,)}, "different radii"),
        ({"batch_norm": "warm"}, "warm"),
    ],
)
def test_bad_settings_are_refused(settings, match):
    model, _ = linear(n=16)
    with pytest.raises(ValueError, match=match):
        susceptibility(model, torch.rand(2, 1, 4, 4), **settings)
    with pytest.raises(ValueError, match="at least one image"):
        susceptibility(model, torch.rand(0, 1, 4, 4))


def test_a_single_point_has_one_start():
    with pytest.raises(ValueError, match="restarts 1 of a single point, got 3"):
        sphere_attack(nn.Flatten(), torch.rand(2, 1, 4, 4), 0.1, restarts=3)
