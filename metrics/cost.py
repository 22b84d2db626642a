"""What a model costs: parameters and multiply-accumulates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from metrics.left_as_found import evaluating
from metrics.metric import Metric


@dataclass(frozen=True, kw_only=True)
class Cost(Metric):
    """Trainable parameters, and multiply-accumulates for one image."""

    default_label: ClassVar[str] = ""
    suffixes: ClassVar[tuple[str, ...]] = ("parameters", "macs")

    def measure(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> tuple[float, ...]:
        return parameters(model), macs(model, images[:1])


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
