"""The small VGG of Sutton et al. 2023 (arXiv 2309.03665), Table 2, with one output for two classes.

The paper leaves open where dropout is (here behind each block) and how weights begin (here as in
Keras: Glorot uniform, no bias).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from search_spaces.architecture import Architecture, Choice
from search_spaces.space import InvalidArchitecture, SearchSpace
from search_spaces.task import Task


@dataclass(frozen=True, kw_only=True)
class VGGLite(SearchSpace):
    """Blocks of two 3x3 convolutions, max-pools between them, the channels' maxima, two layers.

    The paper's net has 3 blocks of 64, 128 and 256 channels and 512 units, 1,277,505 parameters for
    three channels and two classes; for Fashion-MNIST and traffic signs 2 blocks. Two classes have
    one output z, the logits of which are 0 and z: their softmax is the sigmoid of z.

    Args:
        blocks: numbers of blocks.
        filters: channels of the first block; each block has twice those of the one before.
        units: widths of the layer before the last.
        dropout: shares of a block's outputs that are dropped in training.

    Raises:
        ValueError: an empty list, a repeated value, one that is no positive integer, or a dropout
            outside [0, 1).
    """

    name: ClassVar[str] = "vgg-lite"
    blocks: tuple[int, ...] = (2, 3)
    filters: tuple[int, ...] = (64,)
    units: tuple[int, ...] = (512,)
    dropout: tuple[float, ...] = (0.4,)

    def __post_init__(self) -> None:
        for field, value in self.settings().items():
            object.__setattr__(self, field, tuple(value))
        # 0 and 0.0 are one choice, with one hash.
        object.__setattr__(self, "dropout", tuple(float(share) for share in self.dropout))
        for field in ("blocks", "filters", "units"):
            self._check(field, "integers >= 1", lambda v: type(v) is int and v >= 1)
        self._check("dropout", "shares in [0, 1)", lambda share: 0 <= share < 1)

    def _check(self, field: str, expected: str, right: Any) -> None:
        values = getattr(self, field)
        if not values or not all(map(right, values)) or len(set(values)) < len(values):
            raise ValueError(f"{field}: expected distinct {expected}, got {list(values)}")

    def decisions(self) -> dict[str, tuple[Choice, ...]]:
        return {
            "blocks": self.blocks,
            "filters": self.filters,
            "units": self.units,
            "dropout": self.dropout,
        }

    def hidden_states(self, architecture: Architecture) -> dict[str, int]:
        """Return every block (before its pool) and the output."""
        blocks = int(architecture["blocks"])
        return {**{f"block{i}": 2 * i for i in range(1, blocks + 1)}, "": 2 * blocks + 2}

    def network(self, architecture: Architecture, task: Task) -> nn.Module:
        blocks, filters, units = (int(architecture[f]) for f in ("blocks", "filters", "units"))
        channels, height, width = task.shape
        smallest = 2 ** (blocks - 1)
        if min(height, width) < smallest or channels < 1:
            raise InvalidArchitecture(
                f"vgg-lite: expected images of at least {smallest} x {smallest} for {blocks} "
                f"blocks, got {height} x {width} of {channels} channels"
            )
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i in range(1, blocks + 1):
            layers[f"block{i}"] = nn.Sequential(
                nn.Conv2d(channels, filters, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(filters, filters, 3, padding=1),
                nn.ReLU(),
                nn.Dropout(float(architecture["dropout"])),
            )
            if i < blocks:
                layers[f"pool{i}"] = nn.MaxPool2d(2)
            channels, filters = filters, 2 * filters
        layers["maximum"] = nn.AdaptiveMaxPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["dense"] = nn.Sequential(nn.Linear(channels, units), nn.ReLU())
        layers["head"] = nn.Linear(units, task.classes if task.classes > 2 else 1)
        if task.classes == 2:
            layers["logits"] = TwoLogits()
        network = nn.Sequential(layers)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        return network


class TwoLogits(nn.Module):
    """One output ``(N, 1)`` as logits ``(N, 2)`` of two classes, the first of which is 0."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(z), z], dim=1)
