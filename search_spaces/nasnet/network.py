"""The network that repeats a NASNet cell: which cells lead to its output, and their modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from search_spaces.nasnet.operations import OPERATIONS, DropPath, FactorizedReduction, relu_conv_bn

INPUTS = ("h[i-1]", "h[i]")
"""A cell's states 0 and 1: the output of the cell before the last, and of the last cell."""

STAGES = 3


@dataclass(frozen=True)
class Block:
    """One block of a cell.

    Attributes:
        combine: ``add`` or ``concat``.
        reads: two ``(operation, state)``, sorted; states 0 and 1 are the cell's inputs, then come
            the blocks in their order.
    """

    combine: str
    reads: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Place:
    """Where a cell stands in the network.

    Attributes:
        sources: input that the cell reads (0, 1) -> number of the cell whose output it is, 0 the
            stem.
        halved: those of the inputs that come from before a reduction, with twice the sides.
        stride: of operations on the inputs: 2 in a reduction.
        level: reductions up to the cell's output.
    """

    sources: Mapping[int, int]
    halved: tuple[int, ...]
    stride: int
    level: int

    def stride_on(self, state: int) -> int:
        """Return the stride of an operation on ``state``: within a cell nothing shrinks."""
        return self.stride if state < len(INPUTS) else 1


def places(blocks: Sequence[Block], cells: int) -> dict[int, Place]:
    """Return the cells that lead to the network's output, by number from 1, in order.

    Args:
        blocks: of the cell.
        cells: normal cells in a stage.
    """
    strides = ([1] * cells + [2]) * (STAGES - 1) + [1] * cells
    levels = [strides[:number].count(2) for number in range(len(strides) + 1)]
    inputs = sorted({state for block in blocks for _, state in block.reads} & {0, 1})
    live, found = {len(strides)}, {}
    for number in range(len(strides), 0, -1):
        if number in live:
            # The stem is all that comes before the first cell.
            sources = {state: max(number - 2 + state, 0) for state in inputs}
            halved = tuple(s for s in inputs if levels[sources[s]] < levels[number - 1])
            found[number] = Place(sources, halved, strides[number - 1], levels[number])
            live |= set(sources.values())
    return dict(sorted(found.items()))


def loose_ends(blocks: Sequence[Block]) -> list[int]:
    """Return the states of the blocks that no block reads: together they are the cell's output."""
    read = {state for block in blocks for _, state in block.reads}
    return [state for state in range(len(INPUTS), len(INPUTS) + len(blocks)) if state not in read]


def layers_before(blocks: Sequence[Block], cells: int) -> dict[int, int]:
    """Return, for each cell of :func:`places`, the convolutions on the longest path to its end."""
    layers = {0: 1}
    for number, place in places(blocks, cells).items():
        states = {state: layers[source] + 1 for state, source in place.sources.items()}
        for node, block in enumerate(blocks, start=len(INPUTS)):
            states[node] = max(
                states[state]
                + _convolutions(operation, _width(blocks, state), place.stride_on(state))
                for operation, state in block.reads
            )
        layers[number] = max(states[state] for state in loose_ends(blocks))
    del layers[0]
    return layers


class CellNetwork(nn.Module):
    """Stem, cells and head: normalised images to logits.

    Args:
        blocks: of the cell.
        cells: normal cells in a stage.
        filters: of an operation in the first stage.
        stem, stem_stride: channels of the stem, stride of its convolution.
        drop_path: probability of :class:`DropPath` in the last cell.
        channels: of the images.
        classes: logits.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        *,
        cells: int,
        filters: int,
        stem: int,
        stem_stride: int,
        drop_path: float,
        channels: int,
        classes: int,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, stem, 3, stem_stride, padding=1, bias=False),
            nn.BatchNorm2d(stem),
        )
        self.places = places(blocks, cells)
        self.last = max(self.places)
        ends = sum(_width(blocks, state) for state in loose_ends(blocks))
        widths = {0: stem}
        for number, place in self.places.items():
            inputs = {state: widths[source] for state, source in place.sources.items()}
            width = filters * 2**place.level
            cell = ConvolutionalCell(blocks, place, inputs, width, drop_path * number / self.last)
            self.add_module(f"cell{number}", cell)
            widths[number] = width * ends
        self.head = nn.Sequential(
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(widths[self.last], classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        outputs = {0: self.stem(images)}
        for number, place in self.places.items():
            cell = self.get_submodule(f"cell{number}")
            outputs[number] = cell(*(outputs[source] for source in place.sources.values()))
        logits: Tensor = self.head(outputs[self.last])
        return logits


class ConvolutionalCell(nn.Module):
    """One cell of the network.

    Args:
        blocks: in their order.
        place: where the cell stands.
        inputs: channels of the inputs that are read.
        filters: channels of every operation's output.
        dropped: probability of :class:`DropPath`.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        place: Place,
        inputs: Mapping[int, int],
        filters: int,
        dropped: float,
    ) -> None:
        super().__init__()
        self.blocks, self.inputs, self.ends = tuple(blocks), tuple(inputs), loose_ends(blocks)
        for state, channels in inputs.items():
            fit = FactorizedReduction if state in place.halved else relu_conv_bn
            self.add_module(f"input{state}", fit(channels, filters))
        for number, block in enumerate(blocks, start=1):
            for side, (operation, state) in enumerate(block.reads, start=1):
                channels = filters * _width(blocks, state)
                layer = OPERATIONS[operation](channels, filters, place.stride_on(state))
                self.add_module(f"block{number}_{side}", layer)
        self.drop_path = DropPath(dropped)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the cell's output.

        Args:
            inputs: ``(N, C, H, W)``, those that are read, in their order.
        """
        states = {
            state: self.get_submodule(f"input{state}")(images)
            for state, images in zip(self.inputs, inputs, strict=True)
        }
        for number, block in enumerate(self.blocks, start=1):
            both = []
            for side, (operation, state) in enumerate(block.reads, start=1):
                output = self.get_submodule(f"block{number}_{side}")(states[state])
                both.append(output if operation == "identity" else self.drop_path(output))
            together = both[0] + both[1] if block.combine == "add" else torch.cat(both, 1)
            states[len(INPUTS) - 1 + number] = together
        ends = [states[state] for state in self.ends]
        return ends[0] if len(ends) == 1 else torch.cat(ends, 1)


def _width(blocks: Sequence[Block], state: int) -> int:
    """Return the channels of ``state`` over the cell's filters."""
    return 2 if state >= len(INPUTS) and blocks[state - len(INPUTS)].combine == "concat" else 1


@cache
def _convolutions(operation: str, width: int, stride: int) -> int:
    """Return how many convolutions follow each other in an operation on ``width`` x filters."""
    with torch.device("meta"):  # no memory, no random draws
        modules = list(OPERATIONS[operation](width, 1, stride).modules())
    return sum(isinstance(module, nn.Conv2d) for module in modules)
