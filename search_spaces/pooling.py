"""An average pool whose gradient is right on a GPU too.

torch's CUDA gradient of ``avg_pool2d`` is wrong for overlapping windows in the channels_last layout
(torch 2.11 on an H200, float64 included: off by 50 to 80 % of its largest value; on a CPU, and
contiguous on a GPU, it is right). An attack along it is too weak, and a net looks robust that is
not. So the pool runs contiguous there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class AveragePool2d(nn.AvgPool2d):
    """``nn.AvgPool2d``; on a GPU of a contiguous copy of its input."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.avg_pool2d(
            contiguous_on_gpu(input),
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )


@torch.fx.wrap  # one step of a traced model, which could not branch
def contiguous_on_gpu(x: Tensor) -> Tensor:
    """Return ``x``, on a GPU in the contiguous layout."""
    return x.contiguous() if x.is_cuda else x


def with_right_pools(network: nn.Module) -> nn.Module:
    """Let every ``nn.AvgPool2d`` of a network, itself included, be an :class:`AveragePool2d`."""
    for module in network.modules():
        if type(module) is nn.AvgPool2d:
            module.__class__ = AveragePool2d
    return network
