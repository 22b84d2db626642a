"""The ResNets for small images: those of He et al. 2016, section 4.2, and wide ResNets.

Three stages of n blocks with two 3x3 convolutions each; every stage but the first halves the sides
and doubles the channels. A basic net (He et al. 2016) has 6n + 2 layers, a wide one (Zagoruyko and
Komodakis 2016) counts its three shortcut convolutions too and has 6n + 4: so the depth says which
of the two a net is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional

from search_spaces.architecture import Architecture, Choice
from search_spaces.space import InvalidArchitecture, SearchSpace
from search_spaces.task import Task

LAYERS_OUTSIDE = {"basic": 2, "wide": 4}
"""By form, the layers that the depth counts beside the 6n convolutions of the blocks."""
CHANNELS = (16, 32, 64)
"""Of each stage, times the width."""


@dataclass(frozen=True, kw_only=True)
class CifarResNets(SearchSpace):
    """The ResNets for small images, as ResNet-32 and WRN-28-10.

    Basic: post-activation blocks, whose shortcuts are identities without parameters, with zeros for
    new channels and every second pixel where the sides are halved (option A). Wide: pre-activation
    blocks, whose shortcuts are 1x1 convolutions where the channels change, on the input after its
    batch norm and ReLU; dropout between the two convolutions. Weights begin as in He et al. 2015
    (normal, variance 2 / inputs), biases at 0.

    Args:
        form: which depths may be asked for, of ``basic`` and ``wide``.
        depth: numbers of layers, 6n + 2 of a basic and 6n + 4 of a wide net.
        width: factors of the 16, 32 and 64 channels of the stages; a basic net's first convolution
            has 16 times as many too, a wide one's has 16.
        dropout: shares of a block's hidden units that are dropped in training, of wide nets.

    Raises:
        ValueError: an empty list, a repeated value, an unknown form or one without a depth, a depth
            of no form, a width that is no positive integer, a dropout outside [0, 1), or one other
            than 0 where no net is wide.
    """

    name: ClassVar[str] = "cifar-resnet"
    form: tuple[str, ...] = ("basic",)
    depth: tuple[int, ...] = (20, 32, 44, 56)
    width: tuple[int, ...] = (1,)
    dropout: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        for field, value in self.settings().items():
            object.__setattr__(self, field, tuple(value))
        # 0 and 0.0 are one choice, with one hash.
        object.__setattr__(self, "dropout", tuple(float(share) for share in self.dropout))
        self._check("form", f"ones of {list(LAYERS_OUTSIDE)}", lambda form: form in LAYERS_OUTSIDE)
        fits = " or ".join(f"6n + {LAYERS_OUTSIDE[form]} ({form})" for form in self.form)
        self._check("depth", f"integers {fits}", lambda v: _form_of(v) in self.form)
        for form in self.form:
            if form not in map(_form_of, self.depth):
                raise ValueError(f"form: expected depths of each, got none for {form!r}")
        self._check("width", "integers >= 1", lambda v: type(v) is int and v >= 1)
        self._check("dropout", "shares in [0, 1)", lambda share: 0 <= share < 1)
        if "wide" not in self.form and any(self.dropout):
            raise ValueError(f"dropout: expected 0 without wide nets, got {list(self.dropout)}")

    def _check(self, field: str, expected: str, right: Any) -> None:
        values = getattr(self, field)
        if not values or not all(map(right, values)) or len(set(values)) < len(values):
            raise ValueError(f"{field}: expected distinct {expected}, got {list(values)}")

    def decisions(self) -> dict[str, tuple[Choice, ...]]:
        found: dict[str, tuple[Choice, ...]] = {"depth": self.depth, "width": self.width}
        if "wide" in self.form:
            found["dropout"] = self.dropout
        return found

    def graph(self, choices: Mapping[str, Choice]) -> dict[str, Choice]:
        """Return the choices that play a part: the dropout of wide nets alone."""
        used = {"depth": choices["depth"], "width": choices["width"]}
        if _form_of(choices["depth"]) == "wide":
            used["dropout"] = float(choices["dropout"])
        return used

    def hidden_states(self, architecture: Architecture) -> dict[str, int]:
        """Return the first convolution, the three stages and the output.

        Layers are those with weights on the main path: shortcuts are none, so a wide net has two
        less than its depth.
        """
        each = 2 * _blocks(architecture)
        return {
            "conv1": 1,
            **{f"stage{stage}": 1 + each * stage for stage in range(1, len(CHANNELS) + 1)},
            "": 2 + each * len(CHANNELS),
        }

    def network(self, architecture: Architecture, task: Task) -> nn.Module:
        inputs, height, width = task.shape
        if min(task.shape) < 1:
            raise InvalidArchitecture(
                "cifar-resnet: expected images of at least 1 channel and 1 x 1 pixels, "
                f"got {inputs} and {height} x {width}"
            )
        factor, wide = int(architecture["width"]), _form_of(architecture["depth"]) == "wide"
        channels = CHANNELS[0] * (1 if wide else factor)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["conv1"] = _convolution(inputs, channels)
        if not wide:
            layers["norm"], layers["relu"] = nn.BatchNorm2d(channels), nn.ReLU()
        for stage, outputs in enumerate((factor * c for c in CHANNELS), start=1):
            blocks = nn.Sequential()
            for block in range(_blocks(architecture)):
                stride = 2 if stage > 1 and block == 0 else 1
                blocks.append(
                    WideBlock(channels, outputs, stride, float(architecture["dropout"]))
                    if wide
                    else BasicBlock(channels, outputs, stride)
                )
                channels = outputs
            layers[f"stage{stage}"] = blocks
        if wide:
            layers["norm"], layers["relu"] = nn.BatchNorm2d(channels), nn.ReLU()
        layers["average"], layers["flatten"] = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        layers["head"] = nn.Linear(channels, task.classes)
        network = nn.Sequential(layers)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        return network


class BasicBlock(nn.Module):
    """Convolution, norm, ReLU, convolution, norm; plus the input; ReLU (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride, self.added = stride, outputs - inputs
        self.conv1, self.norm1 = _convolution(inputs, outputs, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = _convolution(outputs, outputs), nn.BatchNorm2d(outputs)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, inputs, H, W)`` to ``(N, outputs, H / stride, W / stride)``, rounded up."""
        h = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if self.added:
            x = functional.pad(x, (0, 0, 0, 0, 0, self.added))
        out: Tensor = self.relu2(h + x)
        return out


class WideBlock(nn.Module):
    """Twice norm, ReLU, convolution; plus the input (Zagoruyko and Komodakis 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), _convolution(inputs, outputs, stride)
        self.norm2, self.conv2 = nn.BatchNorm2d(outputs), _convolution(outputs, outputs)
        self.relu1, self.relu2, self.dropout = nn.ReLU(), nn.ReLU(), nn.Dropout(dropout)
        self.shortcut = (
            None
            if inputs == outputs and stride == 1
            else nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, inputs, H, W)`` to ``(N, outputs, H / stride, W / stride)``, rounded up."""
        active = self.relu1(self.norm1(x))
        h = self.dropout(self.relu2(self.norm2(self.conv1(active))))
        out: Tensor = self.conv2(h) + (x if self.shortcut is None else self.shortcut(active))
        return out


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


def _form_of(depth: object) -> str | None:
    """Return the form that has this depth, None where none has."""
    if type(depth) is int:
        for form, outside in LAYERS_OUTSIDE.items():
            if depth > outside and (depth - outside) % 6 == 0:
                return form
    return None


def _blocks(architecture: Architecture) -> int:
    """Return n, the blocks of a stage."""
    depth = int(architecture["depth"])
    return (depth - LAYERS_OUTSIDE[str(_form_of(depth))]) // 6
