"""What a model costs: parameters and multiply-accumulates."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from metrics.attacks.base import evaluating


def parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def macs(model: nn.Module, image: Tensor) -> int:
    """Return the multiply-accumulates of convolutions and matrix products for one image.

    Args:
        model: left as found.
        image: ``(1, C, H, W)``.
    """
    with torch.no_grad(), evaluating(model), FlopCounterMode(display=False) as counter:
        model(image)
    return int(counter.get_total_flops()) // 2
