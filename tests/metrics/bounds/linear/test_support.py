"""What linear bounds are for, and in one line why not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from metrics.bounds.linear import margins, supports
from metrics.bounds.program import read
from search_spaces import DepthChannels, ResNets, Task


def read_of(*layers, side=6, channels=1):
    return read(nn.Sequential(*layers).eval(), torch.rand(2, channels, side, side))


def depth_channels(depth, channels):
    space = DepthChannels(depth=(depth,), channels=(channels,), stem="small")
    architecture = space.architecture({"depth": depth, "channels": channels})
    net = space.build(architecture, Task.plain((1, 28, 28), 10), seed=0).eval()
    return read(net, torch.rand(2, 1, 28, 28))


def lenet():
    return read_of(
        nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10), side=28,
    )  # fmt: skip


def test_lenet_and_small_depth_channels_nets_are_taken():
    assert supports(lenet()) == ""
    for depth, channels in ((2, 16), (2, 32), (4, 16)):
        assert supports(depth_channels(depth, channels)) == ""


def test_deeper_nets_and_resnets_are_too_large():
    assert "times ReLUs behind them" in supports(depth_channels(8, 16))
    space = ResNets()
    net = space.build(space.architecture({"depth": 18}), Task.plain((3, 32, 32), 10), seed=0)
    assert "expected at most" in supports(read(net.eval(), torch.rand(2, 3, 32, 32)))


@pytest.mark.parametrize(
    ("layers", "text"),
    [
        ([nn.Flatten(), nn.Linear(36, 3), nn.Sigmoid()], "got sigmoid (2)"),
        ([nn.Flatten(), nn.Linear(36, 3), nn.ReLU6()], "got clamp (2)"),
        ([nn.LPPool2d(2, 2), nn.Flatten()], "got power pool"),
        ([nn.Flatten(), nn.Softmax(1), nn.Linear(36, 3)], "got softmax (1)"),
        ([nn.Conv2d(1, 12, 1), *[nn.ReLU()] * 300, nn.Flatten()], "inputs of ReLUs"),
        ([nn.Flatten(), nn.Linear(36, 60_000)], "weights"),
        ([nn.Conv2d(1, 1, 3)], "expected logits (N, classes), got 4 axes"),
    ],
)
def test_what_is_not_taken_is_named(layers, text):
    if "axes" in text:
        program = read_of(*layers, nn.Flatten())
        program = type(program)(program.steps[:-1])
    else:
        program = read_of(*layers)
    assert text in supports(program)
    with pytest.raises(ValueError, match="linear bounds: "):
        margins(program, torch.rand(1, 1, 6, 6), torch.tensor([0]), "linf", 0.1)
