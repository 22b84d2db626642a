"""The depth x channels grid of the susceptibility (Ψ) paper.

A net (C, D) is D tuples of conv-BN-ReLU with C channels. The first tuple is the intake: a
downsampling convolution with a max-pool after its ReLU, as in a ResNet. Then a 1x1 convolution,
the average over each channel and one linear layer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from search_spaces.architecture import Architecture, Choice
from search_spaces.space import InvalidArchitecture, SearchSpace
from search_spaces.task import Task

STEMS = {
    # kernel, stride and padding of the first convolution; the same of the max-pool behind it
    "imagenet": ((7, 2, 3), (3, 2, 1)),
    "small": ((3, 1, 1), (2, 2, 0)),
}


@dataclass(frozen=True, kw_only=True)
class DepthChannels(SearchSpace):
    """D x C convolutional nets.

    Args:
        depth: the values of D, the number of conv-BN-ReLU tuples, intake included.
        channels: the values of C.
        stem: ``imagenet`` (7x7/2 convolution, 3x3/2 pool: a quarter of the side, as printed) or
            ``small`` (3x3/1 convolution, 2x2 pool: half of the side).

    Raises:
        ValueError: an empty list, a value that is not a positive integer, a repeated value, or an
            unknown stem.
    """

    name: ClassVar[str] = "depth-channels"
    depth: tuple[int, ...] = (2, 4, 8, 16)
    channels: tuple[int, ...] = (16, 32, 64)
    stem: str = "imagenet"

    def __post_init__(self) -> None:
        for field in ("depth", "channels"):
            values = tuple(getattr(self, field))
            object.__setattr__(self, field, values)
            positive = all(type(v) is int and v >= 1 for v in values)
            if not values or not positive or len(set(values)) < len(values):
                raise ValueError(f"{field}: expected distinct integers >= 1, got {list(values)}")
        if self.stem not in STEMS:
            raise ValueError(f"stem: expected one of {list(STEMS)}, got {self.stem!r}")

    def decisions(self) -> dict[str, tuple[Choice, ...]]:
        return {"depth": self.depth, "channels": self.channels}

    def graph(self, choices: Mapping[str, Choice]) -> object:
        return {**choices, "stem": self.stem}

    def hidden_states(self, architecture: Architecture) -> dict[str, int]:
        """Return every tuple and the output: 1x1 convolution, average and linear layer are one."""
        depth = int(architecture["depth"])
        return {**{f"tuple{layer}": layer for layer in range(1, depth + 1)}, "": depth + 1}

    def network(self, architecture: Architecture, task: Task) -> nn.Module:
        depth, channels = int(architecture["depth"]), int(architecture["channels"])
        (kernel, stride, padding), pool = STEMS[self.stem]
        smallest = 1 if self.stem == "imagenet" else 2
        if min(task.shape[1:]) < smallest:
            raise InvalidArchitecture(
                f"stem {self.stem}: expected images of at least {smallest} x {smallest}, "
                f"got {task.shape[1]} x {task.shape[2]}"
            )
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["tuple1"] = nn.Sequential(
            *_conv_bn_relu(task.shape[0], channels, kernel, stride, padding), nn.MaxPool2d(*pool)
        )
        for layer in range(2, depth + 1):
            layers[f"tuple{layer}"] = nn.Sequential(*_conv_bn_relu(channels, channels, 3, 1, 1))
        layers["mix"] = nn.Conv2d(channels, channels, 1)
        layers["average"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["head"] = nn.Linear(channels, task.classes)
        return nn.Sequential(layers)


def _conv_bn_relu(
    inputs: int, outputs: int, kernel: int, stride: int, padding: int
) -> tuple[nn.Module, ...]:
    # No bias: batch norm subtracts it again.
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
    return conv, nn.BatchNorm2d(outputs), nn.ReLU()
