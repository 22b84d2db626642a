"""The cell space of NAS-Bench-201 (Dong & Yang 2020), in its network."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from search_spaces.architecture import Architecture, Choice
from search_spaces.graphs import Cell
from search_spaces.nasbench201.cells import (
    EDGES,
    KERNELS,
    OPERATIONS,
    Operations,
    Part,
    Term,
    drawn,
    expression,
    features,
    longest_path,
    reduced,
)
from search_spaces.space import InvalidArchitecture, SearchSpace
from search_spaces.task import Task

STAGES = 3


@dataclass(frozen=True, kw_only=True)
class NASBench201(SearchSpace):
    """The cells of NAS-Bench-201 in its network.

    A 3x3 convolution with batch norm, three stages of ``cells`` cells with F, 2F and 4F channels,
    between stages a residual block of stride 2, then BN, ReLU, average and linear layer. Operations
    are ReLU, convolution, BN; pools average over the pixels inside the image.

    Only what the output depends on is built. The published parameter counts have a layer for each
    of a cell's six edges, and are larger where some are dead. In the published networks moreover a
    convolution of zero is the bias of its batch norm; here it is zero. Initial weights are torch's
    own.

    Args:
        cells: in each stage.
        filters: F, the channels of the first stage.

    Raises:
        ValueError: a setting that is not a positive integer.
    """

    name: ClassVar[str] = "nasbench201"
    cells: int = 5
    filters: int = 16

    def __post_init__(self) -> None:
        for field, value in (("cells", self.cells), ("filters", self.filters)):
            if type(value) is not int or value < 1:
                raise ValueError(f"{field}: expected an integer >= 1, got {value!r}")

    def decisions(self) -> dict[str, tuple[Choice, ...]]:
        return {_edge(*ends): OPERATIONS for ends in EDGES}

    def graph(self, choices: Mapping[str, Choice]) -> object:
        return {**self.settings(), "cell": reduced(_operations(choices))}

    def table_key(self, choices: Mapping[str, Choice]) -> str:
        """Return what tells the benchmark's 6,466 cells apart."""
        return expression(_operations(choices))

    def features(self, choices: Mapping[str, Choice]) -> Mapping[str, float]:
        """Return counts of the paths from input to output, and of the operations that are built."""
        return features(_operations(choices))

    def to_string(self, architecture: Architecture) -> str:
        """Return the benchmark's ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``."""
        nodes: dict[int, str] = {}
        for (source, target), operation in zip(EDGES, _of(architecture), strict=True):
            nodes[target] = nodes.get(target, "|") + f"{operation}~{source}|"
        return "+".join(nodes.values())

    def from_string(self, text: str) -> Architecture:
        """See :meth:`SearchSpace.from_string`."""
        node1, node2, node3 = (
            r"\|" + "".join(rf"([^|~+]*)~{source}\|" for source in range(target))
            for target in (1, 2, 3)
        )
        if not (found := re.fullmatch(rf"{node1}\+{node2}\+{node3}", text)):
            raise ValueError(f"expected |op~0|+|op~0|op~1|+|op~0|op~1|op~2|, got {text!r}")
        return self.architecture(dict(zip(self.decisions(), found.groups(), strict=True)))

    def cell(self, architecture: Architecture) -> Cell:
        """Return the nodes and operations that the output depends on, as the benchmark has them."""
        return drawn(_of(architecture))

    def hidden_states(self, architecture: Architecture) -> dict[str, int]:
        """Return the stem, the cells, the residual blocks and the output.

        Layers are convolutions on the longest path, and the linear layer. Cells without a
        convolution have no layers, and are left out.
        """
        each = longest_path(reduced(_of(architecture)))
        states, layers = {"stem": 1}, 1
        for name in self._blocks():
            layers += each if name.startswith("cell") else 2
            if each or name.startswith("residual"):
                states[name] = layers
        return {**states, "": layers + 1}

    def network(self, architecture: Architecture, task: Task) -> nn.Module:
        if min(task.shape) < 1:
            raise InvalidArchitecture(
                "nasbench201: expected images of at least 1 channel and 1 x 1 pixels, "
                f"got {task.shape[0]} and {task.shape[1]} x {task.shape[2]}"
            )
        parts = reduced(_of(architecture))
        if not parts:
            raise InvalidArchitecture(
                "nasbench201: expected a cell whose output depends on its input, "
                f"got {self.to_string(architecture)}"
            )
        channels = self.filters
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["stem"] = nn.Sequential(
            nn.Conv2d(task.shape[0], channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )
        for name in self._blocks():
            if name.startswith("cell"):
                layers[name] = ReducedCell(parts, channels)
            else:
                layers[name] = ResidualReduction(channels)
                channels *= 2
        layers["norm"] = nn.BatchNorm2d(channels)
        layers["relu"] = nn.ReLU()
        layers["average"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["head"] = nn.Linear(channels, task.classes)
        return nn.Sequential(layers)

    def _blocks(self) -> list[str]:
        """Return the names of all between stem and head, in order."""
        names = []
        for stage in range(STAGES):
            names += [f"residual{stage}"] if stage else []
            names += [f"cell{stage * self.cells + i}" for i in range(1, self.cells + 1)]
        return names


class ReducedCell(nn.Module):
    """A reduced cell: ``(N, channels, H, W)`` to the same shape."""

    def __init__(self, parts: tuple[Part, ...], channels: int) -> None:
        super().__init__()
        self.reads = [part.reads for part in parts[1:]]
        self.convolutions = nn.ModuleList(
            _relu_conv_bn(channels, channels, KERNELS[part.operation]) for part in parts[1:-1]
        )
        self.pool = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for convolution, terms in zip(self.convolutions, self.reads[:-1], strict=True):
            values.append(convolution(self.weighted_sum(terms, values)))
        return self.weighted_sum(self.reads[-1], values)

    def weighted_sum(self, terms: tuple[Term, ...], values: list[Tensor]) -> Tensor:
        """Return the sum of ``terms`` by Horner's scheme: pooling is linear, so sums are pooled."""
        total = None
        for pools in range(max(term.pools for term in terms), -1, -1):
            total = self.pool(total) if total is not None else None
            for source, _, times in (term for term in terms if term.pools == pools):
                value = values[source] if times == 1 else times * values[source]
                total = value if total is None else total + value
        assert total is not None
        return total


class ResidualReduction(nn.Module):
    """Two ReLU, 3x3 convolution, BN, the first of stride 2; the shortcut pools and mixes.

    Images ``(N, channels, H, W)`` to ``(N, 2 x channels, H / 2, W / 2)``, sides rounded up.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            _relu_conv_bn(channels, 2 * channels, 3, stride=2),
            _relu_conv_bn(2 * channels, 2 * channels, 3),
        )
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(channels, 2 * channels, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.convolutions(x) + self.shortcut(x)
        return total


def _relu_conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )


def _edge(source: int, target: int) -> str:
    return f"edge_{source}_{target}"


def _operations(choices: Mapping[str, Choice]) -> Operations:
    return tuple(str(choices[_edge(*ends)]) for ends in EDGES)


def _of(architecture: Architecture) -> Operations:
    return _operations(dict(architecture.choices))
