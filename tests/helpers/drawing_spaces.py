"""Networks whose training depends on all that a checkpoint must hold."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from search_spaces import Architecture, SearchSpace, Task


class Draws(nn.Module):
    """Adds noise from Python's and numpy's global generators, and counts in a hidden buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, x):
        if not self.training:
            return x
        self.seen += 1
        noise = random.gauss(0, 0.1) + np.random.normal(0, 0.1)  # noqa: NPY002
        return x + noise / self.seen


@dataclass(frozen=True, kw_only=True)
class Drawing(SearchSpace):
    """Batch norm, dropout, noise, tied weights and weights with strides of their own."""

    def decisions(self):
        return {"width": (6, 8)}

    def network(self, architecture: Architecture, task: Task) -> nn.Module:
        width = architecture["width"]
        convolution = nn.Conv2d(task.shape[0], width, 3, padding=1)
        second = nn.Conv2d(width, width, 3, padding=1)
        tied = nn.Conv2d(width, width, 3, padding=1)
        tied.weight = second.weight
        linear = nn.Linear(width, task.classes)
        linear.weight.data = linear.weight.data.t().contiguous().t()
        model = nn.Sequential(
            convolution, nn.BatchNorm2d(width), nn.ReLU(), Draws(), second, nn.ReLU(), tied,
            nn.Dropout(0.2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear,
        )  # fmt: skip
        return model.to(memory_format=torch.channels_last)
