"""The intake's faster gradient is torch's own, and the fast copy uses it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from metrics.engine.folding import fast_copy
from metrics.engine.intake import IntakeConv2d
from search_spaces import DepthChannels, Task


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(7, 2, 3), (7, 2, 0), (3, 2, 1), (4, 4, 0), (5, 3, 2)]
)
@pytest.mark.parametrize("size", [(16, 16), (15, 18), (28, 9)])
def test_outputs_and_gradients_are_torchs(kernel, stride, padding, size, bias):
    conv = nn.Conv2d(3, 5, kernel, stride, padding, bias=bias)
    assert IntakeConv2d.fits(conv)
    x = torch.randn(2, 3, *size, generator=generator(), requires_grad=True)
    answers = []
    for module in (conv, IntakeConv2d(conv)):
        y = module(x)
        cotangent = torch.randn(y.shape, generator=generator(1))
        answers.append((y.detach(), torch.autograd.grad(y, x, cotangent)[0]))
    for expected, got in zip(*answers, strict=True):
        assert got.shape == expected.shape
        assert torch.allclose(expected, got, atol=1e-5)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(8, 5, 7, 2, 3),
        nn.Conv2d(3, 5, 3, 1, 1),
        nn.Conv2d(3, 6, 7, 2, 3, groups=3),
        nn.Conv2d(3, 5, 7, 2, 3, dilation=2),
        nn.Conv2d(3, 5, 7, 2, 3, padding_mode="reflect"),
        nn.Conv2d(3, 5, (7, 5), 2, 3),
        nn.Conv2d(3, 5, 7, (2, 1), 3),
        nn.Conv2d(3, 5, 7, 2, (3, 2)),
        nn.Conv2d(3, 5, 1, 2),
    ],
)
def test_other_convolutions_stay_torchs(conv):
    assert not IntakeConv2d.fits(conv)


def test_the_fast_copy_has_it():
    space = DepthChannels(depth=(2,), channels=(8,))
    architecture = space.architecture({"depth": 2, "channels": 8})
    model = space.build(architecture, Task.plain((3, 32, 32), 5)).eval()
    copy = fast_copy(model, torch.rand(2, 3, 32, 32, generator=generator()))
    assert any(isinstance(module, IntakeConv2d) for module in copy.modules())
    assert not any(isinstance(module, IntakeConv2d) for module in model.modules())


def test_a_second_derivative_is_refused_rather_than_wrong():
    conv = IntakeConv2d(nn.Conv2d(3, 5, 7, 2, 3))
    x = torch.randn(1, 3, 8, 8, requires_grad=True)
    first = torch.autograd.grad(conv(x).square().sum(), x, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="grad|differentiate"):
        torch.autograd.grad(first.sum(), x)
