"""The layers that cells are made of: the 13 operations of NASNet (Zoph et al. 2017).

An operation is a function ``(inputs, outputs, stride) -> module``: from so many channels to so
many, the sides divided by the stride and rounded up, at any side from 1 pixel on. Convolutions are
ReLU-convolution-BN, padded with zeros and without a bias, which the batch norm would subtract.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

Operation = Callable[[int, int, int], nn.Module]
"""(input channels, output channels, stride) -> module"""


class DropPath(nn.Module):
    """Zero the whole tensor of an image with a probability, when training (Larsson et al. 2017).

    What is kept is scaled by 1 / (1 - probability), so that its mean stays. The draws are those of
    torch's global generator.

    Args:
        probability: in [0, 1).
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return x
        keep = 1 - self.probability
        return x / keep * x.new_empty(len(x), 1, 1, 1).bernoulli_(keep)


class FactorizedReduction(nn.Module):
    """Halve the sides: ReLU, two 1x1 convolutions of stride 2, each for half of the outputs, BN.

    The second starts one pixel further right and down, so that half of the pixels are seen where a
    single one sees a quarter (NASNet, for a cell's input that is twice as large as the other).

    Args:
        inputs, outputs: channels; outputs even.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.even = nn.Conv2d(inputs, outputs // 2, 1, 2, bias=False)
        self.odd = nn.Conv2d(inputs, outputs // 2, 1, 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(x)
        shifted = functional.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        norm: Tensor = self.norm(torch.cat([self.even(x), self.odd(shifted)], 1))
        return norm


def relu_conv_bn(
    inputs: int, outputs: int, stride: int = 1, *, kernel: int = 1, dilation: int = 1
) -> nn.Sequential:
    """Return ReLU, a kernel x kernel convolution and batch norm."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False)
    return nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(outputs))


def identity(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Return what changes nothing; a 1x1 ReLU-convolution-BN where channels or sides must change.

    That is what NASNet does with its skip connections.
    """
    if inputs == outputs and stride == 1:
        return nn.Identity()
    return relu_conv_bn(inputs, outputs, stride)


def crossed(inputs: int, outputs: int, stride: int, *, kernel: int) -> nn.Sequential:
    """Return a 1 x kernel convolution, then a kernel x 1 one, each ReLU-convolution-BN.

    The first changes the channels; each strides along its kernel.
    """
    k, half = kernel, kernel // 2
    row = nn.Conv2d(inputs, outputs, (1, k), (1, stride), (0, half), bias=False)
    column = nn.Conv2d(outputs, outputs, (k, 1), (stride, 1), (half, 0), bias=False)
    return nn.Sequential(
        nn.ReLU(), row, nn.BatchNorm2d(outputs), nn.ReLU(), column, nn.BatchNorm2d(outputs)
    )


def separable(inputs: int, outputs: int, stride: int, *, kernel: int) -> nn.Sequential:
    """Return a depthwise separable convolution applied twice, as NASNet does.

    Each time ReLU, depthwise kernel x kernel, 1x1, BN; the first time with the stride.
    """
    layers: list[nn.Module] = []
    for channels, step in ((inputs, stride), (outputs, 1)):
        layers += [
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel, step, kernel // 2, groups=channels, bias=False),
            nn.Conv2d(channels, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        ]
    return nn.Sequential(*layers)


def average_pool(inputs: int, outputs: int, stride: int, *, kernel: int) -> nn.Module:
    """Return a pool over the pixels there are, padding left out; see :func:`max_pool`."""
    pool = nn.AvgPool2d(kernel, stride, kernel // 2, count_include_pad=False)
    return _with_channels(pool, inputs, outputs)


def max_pool(inputs: int, outputs: int, stride: int, *, kernel: int) -> nn.Module:
    """Return a pool with the stride; where channels must change, a 1x1 ReLU-convolution-BN follows.

    That is what NASNet does.
    """
    return _with_channels(nn.MaxPool2d(kernel, stride, kernel // 2), inputs, outputs)


def _with_channels(pool: nn.Module, inputs: int, outputs: int) -> nn.Module:
    return pool if inputs == outputs else nn.Sequential(pool, relu_conv_bn(inputs, outputs))


OPERATIONS: dict[str, Operation] = {
    "identity": identity,
    "conv_1x3_3x1": partial(crossed, kernel=3),
    "conv_1x7_7x1": partial(crossed, kernel=7),
    "dilated_conv_3x3": partial(relu_conv_bn, kernel=3, dilation=2),
    "avg_pool_3x3": partial(average_pool, kernel=3),
    "max_pool_3x3": partial(max_pool, kernel=3),
    "max_pool_5x5": partial(max_pool, kernel=5),
    "max_pool_7x7": partial(max_pool, kernel=7),
    "conv_1x1": partial(relu_conv_bn, kernel=1),
    "conv_3x3": partial(relu_conv_bn, kernel=3),
    "sep_conv_3x3": partial(separable, kernel=3),
    "sep_conv_5x5": partial(separable, kernel=5),
    "sep_conv_7x7": partial(separable, kernel=7),
}
