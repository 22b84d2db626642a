"""LeNet as Caffe has it: no ReLU behind the convolutions (Peck et al. 2017, section 5).

Convolution 5 x 5, max pool, convolution 5 x 5, max pool, a dense layer with ReLU, a dense layer.
Weights begin as Caffe's do ("xavier": uniform, variance 1 / inputs), biases at 0.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from search_spaces.architecture import Architecture, Choice
from search_spaces.space import InvalidArchitecture, SearchSpace
from search_spaces.task import Task

KERNEL = 5
SMALLEST = 16  # pixels: one is left behind the second pool


@dataclass(frozen=True, kw_only=True)
class LeNet(SearchSpace):
    """LeNets with so many channels, 5/2 as many in the second convolution, and units.

    Caffe's has 20 channels and 500 units: 431,080 parameters for MNIST.

    Args:
        filters: channels of the first convolution, even numbers.
        units: widths of the layer before the last.
        relu: whether ReLUs follow the convolutions too.

    Raises:
        ValueError: an empty list, a repeated value, or one of another kind.
    """

    name: ClassVar[str] = "lenet"
    filters: tuple[int, ...] = (20,)
    units: tuple[int, ...] = (500,)
    relu: tuple[bool, ...] = (False,)

    def __post_init__(self) -> None:
        for field, value in self.settings().items():
            object.__setattr__(self, field, tuple(value))
        self._check("filters", "even numbers >= 2", lambda v: _whole(v) and v >= 2 and v % 2 == 0)
        self._check("units", "integers >= 1", lambda v: _whole(v) and v >= 1)
        self._check("relu", "booleans", lambda v: isinstance(v, bool))

    def _check(self, field: str, expected: str, right: Callable[[Any], bool]) -> None:
        values = getattr(self, field)
        if not values or not all(map(right, values)) or len(set(values)) < len(values):
            raise ValueError(f"{field}: expected distinct {expected}, got {list(values)}")

    def decisions(self) -> dict[str, tuple[Choice, ...]]:
        return {"filters": self.filters, "units": self.units, "relu": self.relu}

    def hidden_states(self, architecture: Architecture) -> dict[str, int]:
        """Return both pools, the dense layer and the output."""
        return {"pool1": 1, "pool2": 2, "dense": 3, "": 4}

    def network(self, architecture: Architecture, task: Task) -> nn.Module:
        filters, units = int(architecture["filters"]), int(architecture["units"])
        channels, height, width = task.shape
        if min(height, width) < SMALLEST:
            raise InvalidArchitecture(
                f"lenet: expected images of at least {SMALLEST} x {SMALLEST}, "
                f"got {height} x {width}"
            )
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i, outputs in enumerate((filters, filters * 5 // 2), start=1):
            layers[f"conv{i}"] = nn.Conv2d(channels, outputs, KERNEL)
            if architecture["relu"]:
                layers[f"relu{i}"] = nn.ReLU()
            layers[f"pool{i}"] = nn.MaxPool2d(2, ceil_mode=True)  # as Caffe rounds
            height, width = (-(-(side - KERNEL + 1) // 2) for side in (height, width))
            channels = outputs
        layers["flatten"] = nn.Flatten()
        layers["dense"] = nn.Sequential(nn.Linear(channels * height * width, units), nn.ReLU())
        layers["head"] = nn.Linear(units, task.classes)
        network = nn.Sequential(layers)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                side = math.sqrt(3 / module.weight[0].numel())
                nn.init.uniform_(module.weight, -side, side)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        return network


def _whole(value: Any) -> bool:
    return type(value) is int
