"""Plain random nets: fully connected ones, and simple convolutional ones with dropout.

Cubuk et al. 2017 drew such nets to show that adversarial error grows alike in all of them: 1-4
hidden layers of 30-2000 units, or "simple" convolutional nets with dropout 0-0.5. The paper leaves
open whether the layers of a net are equally wide (here each has its own width), the number, width
and kernels of convolutions, where they pool, and where dropout is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from search_spaces.architecture import Architecture, Choice
from search_spaces.space import InvalidArchitecture, SearchSpace
from search_spaces.task import Task

KINDS = ("dense", "conv")


@dataclass(frozen=True, kw_only=True)
class FeedForward(SearchSpace):
    """Fully connected nets, and convolutional ones with dropout.

    Dense: ``hidden_layers`` linear layers with ReLU, then the linear layer of the logits; without
    hidden layers that is a linear model. Conv: ``conv_layers`` convolutions that keep the sides,
    with ReLU, each followed by a 2x2 max-pool while both sides are at least 2 pixels; then dropout
    and one linear layer. No batch norm. What plays no part (``units3`` of a net with two hidden
    layers, say) changes neither graph nor hash.

    Args:
        kinds: of ``dense`` and ``conv``.
        hidden_layers: numbers of hidden layers of a dense net; 0 is a linear model.
        units: widths of a hidden layer.
        conv_layers: numbers of convolutions of a conv net.
        channels: widths of a convolution.
        kernels: sides of a convolution's kernel, odd.
        dropout: shares of the last convolution's outputs that are dropped in training.

    Raises:
        ValueError: an empty list, a repeated value, one that is no positive integer (or 0 hidden
            layers), an even kernel, a dropout outside [0, 1), or an unknown kind.
    """

    name: ClassVar[str] = "feedforward"
    kinds: tuple[str, ...] = KINDS
    hidden_layers: tuple[int, ...] = (1, 2, 3, 4)
    units: tuple[int, ...] = (30, 100, 300, 1000, 2000)
    conv_layers: tuple[int, ...] = (1, 2, 3)
    channels: tuple[int, ...] = (16, 32, 64)
    kernels: tuple[int, ...] = (3, 5)
    dropout: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)

    def __post_init__(self) -> None:
        for field, value in self.settings().items():
            object.__setattr__(self, field, tuple(value))
        object.__setattr__(self, "dropout", tuple(float(share) for share in self.dropout))
        self._check("kinds", f"ones of {list(KINDS)}", lambda kind: kind in KINDS)
        self._check("hidden_layers", "integers >= 0", lambda v: type(v) is int and v >= 0)
        for field in ("units", "conv_layers", "channels"):
            self._check(field, "integers >= 1", lambda v: type(v) is int and v >= 1)
        self._check("kernels", "odd integers >= 1", lambda v: type(v) is int and v > 0 and v % 2)
        self._check("dropout", "shares in [0, 1)", lambda share: 0 <= share < 1)

    def _check(self, field: str, expected: str, right: Any) -> None:
        values = getattr(self, field)
        if not values or not all(map(right, values)) or len(set(values)) < len(values):
            raise ValueError(f"{field}: expected distinct {expected}, got {list(values)}")

    def decisions(self) -> dict[str, tuple[Choice, ...]]:
        found: dict[str, tuple[Choice, ...]] = {"kind": self.kinds}
        if "dense" in self.kinds:
            found["hidden_layers"] = self.hidden_layers
            for layer in range(1, max(self.hidden_layers) + 1):
                found[f"units{layer}"] = self.units
        if "conv" in self.kinds:
            found["conv_layers"] = self.conv_layers
            for layer in range(1, max(self.conv_layers) + 1):
                found[f"channels{layer}"] = self.channels
                found[f"kernel{layer}"] = self.kernels
            found["dropout"] = self.dropout
        return found

    def graph(self, choices: Mapping[str, Choice]) -> dict[str, Choice]:
        """Return the choices that play a part."""
        if choices["kind"] == "dense":
            names = ["hidden_layers"]
            names += [f"units{i}" for i in range(1, int(choices["hidden_layers"]) + 1)]
        else:
            layers = range(1, int(choices["conv_layers"]) + 1)
            names = ["conv_layers", "dropout"]
            names += [f"{field}{i}" for i in layers for field in ("channels", "kernel")]
        used = {name: choices[name] for name in ["kind", *names]}
        if "dropout" in used:
            used["dropout"] = float(used["dropout"])  # 0 and 0.0 have one hash
        return used

    def hidden_states(self, architecture: Architecture) -> dict[str, int]:
        """Return every hidden layer (with its ReLU and pool) and the output."""
        count = "hidden_layers" if architecture["kind"] == "dense" else "conv_layers"
        layers = int(architecture[count])
        return {**{f"layer{i}": i for i in range(1, layers + 1)}, "": layers + 1}

    def network(self, architecture: Architecture, task: Task) -> nn.Module:
        inputs, height, width = task.shape
        if min(task.shape) < 1:
            raise InvalidArchitecture(
                "feedforward: expected images of at least 1 channel and 1 x 1 pixels, "
                f"got {inputs} and {height} x {width}"
            )
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if architecture["kind"] == "dense":
            layers["flatten"] = nn.Flatten()
            features = inputs * height * width
            for i in range(1, int(architecture["hidden_layers"]) + 1):
                units = int(architecture[f"units{i}"])
                layers[f"layer{i}"] = nn.Sequential(nn.Linear(features, units), nn.ReLU())
                features = units
        else:
            for i in range(1, int(architecture["conv_layers"]) + 1):
                channels, kernel = (int(architecture[f"{f}{i}"]) for f in ("channels", "kernel"))
                layer = nn.Sequential(
                    nn.Conv2d(inputs, channels, kernel, padding=kernel // 2), nn.ReLU()
                )
                if min(height, width) >= 2:
                    layer.append(nn.MaxPool2d(2))
                    height, width = height // 2, width // 2
                layers[f"layer{i}"], inputs = layer, channels
            layers["flatten"] = nn.Flatten()
            layers["dropout"] = nn.Dropout(float(architecture["dropout"]))
            features = inputs * height * width
        layers["head"] = nn.Linear(features, task.classes)
        return nn.Sequential(layers)
