"""Reference networks: torchvision's ResNets, freshly initialised, for images of any size.

What a search finds is compared with them, and the susceptibility (Ψ) paper measures them. There is
nothing to invent here: blocks, names and initial weights are torchvision's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

from torch import nn

from search_spaces.architecture import Architecture, Choice
from search_spaces.space import InvalidArchitecture, SearchSpace
from search_spaces.task import Task

BLOCKS = {
    # blocks in each of the four stages
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
BOTTLENECK = 50  # from this depth on, a block has three convolutions for two
STEMS = ("imagenet", "small")


@dataclass(frozen=True, kw_only=True)
class ResNets(SearchSpace):
    """torchvision's ResNets, untrained (He et al. 2016; bottlenecks stride in their 3x3).

    With the stem ``imagenet`` and images of up to 32 x 32 the last stage is 1 x 1, of which batch
    norm needs two images to train.

    Args:
        depth: the numbers of weight layers, of 18, 34, 50, 101 and 152.
        stem: ``imagenet`` (7x7/2 convolution, 3x3/2 max-pool) or ``small`` (3x3/1 convolution, no
            pool), as is usual for CIFAR.

    Raises:
        ValueError: an empty list, an unknown or repeated depth, or an unknown stem.
    """

    name: ClassVar[str] = "resnet"
    depth: tuple[int, ...] = tuple(BLOCKS)
    stem: str = "imagenet"

    def __post_init__(self) -> None:
        values = tuple(self.depth)
        object.__setattr__(self, "depth", values)
        known = all(type(v) is int and v in BLOCKS for v in values)
        if not values or not known or len(set(values)) < len(values):
            raise ValueError(f"depth: expected distinct ones of {list(BLOCKS)}, got {list(values)}")
        if self.stem not in STEMS:
            raise ValueError(f"stem: expected one of {list(STEMS)}, got {self.stem!r}")

    def decisions(self) -> dict[str, tuple[Choice, ...]]:
        return {"depth": self.depth}

    def graph(self, choices: Mapping[str, Choice]) -> object:
        return {**choices, "stem": self.stem}

    def hidden_states(self, architecture: Architecture) -> dict[str, int]:
        """Return the first convolution, the four stages and the output, as the Ψ paper has them.

        Layers are those with weights on the main path, which the depth counts: shortcuts are none.
        """
        depth = int(architecture["depth"])
        each = 3 if depth >= BOTTLENECK else 2
        ends = {
            f"layer{stage}": 1 + each * blocks
            for stage, blocks in enumerate(accumulate(BLOCKS[depth]), start=1)
        }
        return {"conv1": 1, **ends, "": depth}

    def network(self, architecture: Architecture, task: Task) -> nn.Module:
        """See :meth:`SearchSpace.network`.

        Raises:
            InvalidArchitecture: images without channels or pixels.
            ImportError: torchvision is missing.
        """
        channels, height, width = task.shape
        if min(task.shape) < 1:
            raise InvalidArchitecture(
                "resnet: expected images of at least 1 channel and 1 x 1 pixels, "
                f"got {channels} and {height} x {width}"
            )
        try:
            from torchvision import models  # here: that takes 1.4 s, as long as torch
        except ImportError as error:
            raise ImportError(f"the space resnet needs torchvision: {error}") from error
        network: nn.Module = getattr(models, f"resnet{architecture['depth']}")(
            weights=None, num_classes=task.classes
        )
        if self.stem == "small":
            network.conv1 = _first_convolution(channels, kernel=3, stride=1)
            network.maxpool = nn.Identity()
        elif channels != 3:
            network.conv1 = _first_convolution(channels, kernel=7, stride=2)
        return network


def _first_convolution(channels: int, kernel: int, stride: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels, 64, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv
