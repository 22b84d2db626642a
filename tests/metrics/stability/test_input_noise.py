"""Training noise: uniform in a cube or in the ball of its length, fresh, and not clipped."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import nn

from metrics.attacks import PGD
from metrics.stability.input_noise import INPUT_NOISE, NoiseBall, NoiseCube, noise_length
from nas.data.arrays import Data, Split
from nas.trial.recipe import Recipe
from nas.trial.training import drain, train
from search_spaces import DepthChannels, Task

KINDS = [NoiseCube, NoiseBall]
every_kind = pytest.mark.parametrize("kind", KINDS)
SURPRISE = 1e-3  # of a KS test, whose seed is fixed


class NeverCalled(nn.Module):
    def forward(self, x):
        raise AssertionError("the model was called")


def noise(kind, epsilon=0.5, shape=(1, 2, 2), n=4000, seed=0):
    """Return ``(n, pixels)`` draws: those of black images, to which nothing is rounded."""
    generator = torch.Generator().manual_seed(seed)
    black = torch.zeros(n, *shape)
    return kind(epsilon=epsilon)(NeverCalled(), black, generator=generator).flatten(1).double()


def test_the_cubes_noise_is_uniform_in_every_pixel():
    drawn = noise(NoiseCube, 0.3)
    assert drawn.abs().max() <= 0.3 * (1 + 1e-7)
    for pixel in drawn.T:
        assert stats.kstest(pixel.numpy(), stats.uniform(-0.3, 0.6).cdf).pvalue > SURPRISE
    assert abs(torch.corrcoef(drawn.T) - torch.eye(4)).max() < 5 / math.sqrt(4000)


def test_the_balls_noise_is_uniform_in_the_ball_of_radius_epsilon_root_n_thirds():
    """(length / radius)^n is uniform, the square of a direction's coordinate Beta(1/2, 3/2)."""
    drawn, radius = noise(NoiseBall, 0.3), 0.3 * math.sqrt(4 / 3)
    length = drawn.norm(dim=1)
    assert length.max() <= radius * (1 + 1e-6)
    assert stats.kstest(((length / radius) ** 4).numpy(), "uniform").pvalue > SURPRISE
    for pixel in drawn.T:
        share = (pixel / length).square().numpy()
        assert stats.kstest(share, stats.beta(0.5, 1.5).cdf).pvalue > SURPRISE
        assert abs((pixel > 0).double().mean() - 0.5) < 5 * 0.5 / math.sqrt(4000)


@pytest.mark.parametrize(("epsilon", "length"), [(0.1, 3.2), (0.5, 16.0), (1.0, 32.0)])
def test_both_are_of_one_length(epsilon, length):
    """n = 3072: sqrt(n / 3) = 32; of the ball n / (n + 1) of it, of the cube its root mean."""
    assert noise_length(epsilon, 3072) == pytest.approx(length)
    cube, ball = (noise(kind, epsilon, (3, 32, 32), n=50).norm(dim=1) for kind in KINDS)
    assert cube.square().mean().sqrt().item() == pytest.approx(length, rel=0.01)
    assert ball.mean().item() == pytest.approx(length * 3072 / 3073, rel=5e-4)


@every_kind
def test_the_generator_decides_and_every_call_draws_anew(kind):
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(2, 1, 4, 4, generator=generator)
    generator.manual_seed(3)
    first, second = (kind(epsilon=0.2)(NeverCalled(), x, generator=generator) for _ in range(2))
    generator.manual_seed(3)
    assert torch.equal(kind(epsilon=0.2)(NeverCalled(), x, generator=generator), first)
    assert not (first == second).all(dim=3).any()
    assert not torch.equal(first[0] - x[0], first[1] - x[1])


@every_kind
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_it_is_added_and_not_clipped_in_every_precision(kind, dtype):
    x = torch.rand(50, 3, 4, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    x[0], x[1] = 0, 1
    out = kind(epsilon=0.5)(NeverCalled(), x, generator=torch.Generator().manual_seed(1))
    assert out.dtype == dtype
    assert out[0].min() < 0
    assert out[1].max() > 1
    alone = noise(kind, 0.5, (3, 4, 4), n=50, seed=1)
    if dtype != torch.float64:  # which has draws of its own
        rounding = 1.5 * torch.finfo(dtype).eps  # half a step at up to 3
        torch.testing.assert_close(
            (out.double() - x.double()).flatten(1), alone, rtol=0, atol=rounding
        )
    if kind is NoiseCube:
        assert (out.double() - x.double()).abs().max() <= 0.5 + torch.finfo(dtype).eps


@every_kind
def test_the_model_is_left_as_found(kind):
    model = nn.Sequential(NeverCalled(), nn.BatchNorm2d(1).eval(), nn.Dropout())
    modes = [m.training for m in model.modules()]
    x = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    out = kind(epsilon=0.5)(model, x, torch.tensor([0, 1]))
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(x, before)
    assert not out.requires_grad


@pytest.mark.parametrize("name", INPUT_NOISE)
def test_training_shows_fresh_noise_at_every_presentation(name):
    """Of black images the net sees the noise alone."""
    seen = []

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(16, 2)

        def forward(self, x):
            seen.append(x.detach().flatten(1).clone())
            return self.linear(x.flatten(1))

    black = Split(torch.zeros(6, 1, 4, 4), torch.arange(6) % 2)
    recipe = Recipe(
        epochs=3, batch_size=3, adversary=name, epsilon=0.4, adversarial_share=1.0,
        selection_images=0,
    )  # fmt: skip
    data = Data(black, black, Task.plain((1, 4, 4), 2))
    drain(train(Net(), data, recipe, recipe.attack(), torch.Generator().manual_seed(0)))
    presented = torch.cat(seen)
    assert len(presented) == 3 * 6
    assert len(presented.unique(dim=0)) == 3 * 6
    assert (presented.abs().amax(dim=1) > 0.1).all()


@pytest.mark.parametrize("name", INPUT_NOISE)
def test_a_net_learns_digits_under_noise(name, digits):
    space = DepthChannels(depth=(2,), channels=(8,), stem="small")
    model = space.build(next(iter(space)), digits.task)
    recipe = Recipe(
        epochs=6, batch_size=32, adversary=name, epsilon=0.2, adversarial_share=1.0,
        selection_images=0,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    drain(train(model, digits, recipe, recipe.attack(), generator))
    right = model(digits.validation.images()).argmax(dim=1) == digits.validation.labels
    assert right.double().mean() > 0.7  # chance is 0.1


@pytest.mark.parametrize("name", ["none", "noise-cube", "noise-ball", "pgd"])
@pytest.mark.parametrize("epsilon", [8 / 255, 0.1, 0.5, 1.0])
def test_one_epsilon_serves_recipes_with_and_without_noise(name, epsilon):
    """So a sweep over adversaries needs one number, and every net is judged by one attack."""
    recipe = Recipe(adversary=name, epsilon=epsilon)
    kinds = {"none": type(None), "pgd": PGD, **INPUT_NOISE}
    assert type(recipe.attack()) is kinds[name]
    assert name == "none" or recipe.attack().epsilon == epsilon
    assert recipe.judge() == PGD(epsilon=epsilon, steps=7)


def test_an_unknown_adversary_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"none, fgsm, .*noise, noise-cube, noise-ball or pkg"):
        Recipe(adversary="noise-sphere")
