"""Nets of one and two pixels, whose least margin a dense grid finds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import metrics.bounds.linear.enclosure as enclosure
from metrics.bounds.linear import margins
from metrics.bounds.linear.lines import activation_lines
from metrics.bounds.program import read


def true_margins(program, images, labels):
    """Return what the program itself says in float64 ``(N, classes)``; inf for the label."""
    last = len(program.steps) - 1
    logits = program.evaluate(images.double(), [last])[last]
    ahead = logits.gather(1, labels[:, None]) - logits
    return ahead.scatter(1, labels[:, None], torch.inf)


def low_dimensional(seed, size):
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(size, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)
    )
    image = 0.3 + 0.4 * torch.rand(1, 1, 1, size)
    return read(net, image), image, net(image).argmax(1)


def on_a_grid(seed, size, norm, epsilon):
    """Return margins ``(3,)`` of an image, their bounds, and the least ones of a dense grid."""
    program, image, label = low_dimensional(seed, size)
    axis = torch.linspace(-1, 1, 201, dtype=torch.float64)
    away = torch.cartesian_prod(*[axis] * size).view(-1, 1, 1, size)
    if norm == "l2":
        away = away[away.flatten(1).norm(dim=1) <= 1]
    points = (image.double() + (1 - 1e-12) * epsilon * away).clamp(0, 1)
    least = true_margins(program, points, label.expand(len(points))).amin(0)
    bound = margins(program, image, label, norm, epsilon)[0]
    return true_margins(program, image, label)[0], bound, least


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_bounds_lie_below_the_least_margin_of_a_dense_grid_and_near_to_it(size, norm):
    share = []
    for seed in range(12):
        for epsilon in (0.02, 0.2):
            here, bound, least = on_a_grid(seed, size, norm, epsilon)
            assert (bound <= least).all()
            fallen = ((here - bound) / (here - least).clamp_min(1e-9))[~here.isinf()]
            share += fallen.tolist()
    # How much further a bound goes down than the margin itself; 1 is exact.
    assert sorted(share)[len(share) // 2] < 1.05
    assert sorted(share)[int(len(share) * 0.9)] < 3


def swapped(slope, z):
    lines = activation_lines(slope, z)
    return replace(lines, lower_slope=lines.upper_slope, upper_slope=lines.lower_slope)


def low(slope, z):
    return replace(activation_lines(slope, z), upper_shift=torch.zeros_like(z.lower))


@pytest.mark.parametrize("wrong", [swapped, low])
def test_the_grid_notices_lines_that_are_wrong(monkeypatch, wrong):
    monkeypatch.setattr(enclosure, "activation_lines", wrong)
    seen = [on_a_grid(seed, 2, "linf", 0.5) for seed in range(12)]
    assert any(bool((bound > least).any()) for _, bound, least in seen)
