"""The NASNet search space (Zoph et al. 2017), as Cubuk et al. 2017 searched it for robustness.

A cell is a few blocks. A block reads two earlier states, puts an operation on each, and adds or
concatenates the two. The network repeats the cell: three stages of normal cells and, before the
second and the third, the same cell as a reduction. Cubuk et al. take one cell for both, 7 blocks
instead of 5, and leave open how many cells and filters their children had.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

from torch import nn

from search_spaces.architecture import Architecture, Choice
from search_spaces.graphs import Cell, canonical_order
from search_spaces.nasnet.network import INPUTS, Block, CellNetwork, layers_before, loose_ends
from search_spaces.nasnet.operations import OPERATIONS
from search_spaces.space import InvalidArchitecture, SearchSpace
from search_spaces.task import Task

COMBINE = ("add", "concat")


@dataclass(frozen=True, kw_only=True)
class NASNet(SearchSpace):
    """NASNet cells: blocks of two operations, the same cell throughout.

    The decisions of block b are ``block{b}_left_input`` and ``_right_input`` (0 the cell before the
    last, 1 the last cell, 2 the first block, ...), ``_left_op``, ``_right_op`` and ``_combine``. A
    cell's output is the concatenation of the blocks that no other reads. Each input that is read
    passes a 1x1 ReLU-convolution-BN to the cell's filters, a factorised reduction where its sides
    are twice those of the other. What leads to no output is not built: every second cell, where the
    cell reads its input 0 alone. The stem is a 3x3 convolution with BN, the head ReLU, average and
    a linear layer. There is no auxiliary head.

    The winner enlarged, as the paper does, is the same choices with other settings:
    ``dataclasses.replace(space, cells=6, filters=96).architecture(dict(winner.choices))``.

    Args:
        blocks: in a cell.
        cells: normal cells in each of the three stages.
        filters: of an operation in the first stage; each reduction doubles them.
        stem_multiplier: the stem has so many times the filters (3 in NASNet, for CIFAR).
        stem_stride: of the stem's convolution; 2 makes all of it four times as cheap.
        drop_path: probability, in the last cell, that an image loses the output of an operation
            other than identity while training; it grows linearly with the cell's number.

    Raises:
        ValueError: a number below 1, or a probability outside [0, 1).
    """

    name: ClassVar[str] = "nasnet"
    blocks: int = 7
    cells: int = 2
    filters: int = 32
    stem_multiplier: int = 3
    stem_stride: int = 1
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        for field in ("blocks", "cells", "filters", "stem_multiplier", "stem_stride"):
            value = getattr(self, field)
            if type(value) is not int or value < 1:
                raise ValueError(f"{field}: expected an integer >= 1, got {value!r}")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path: expected a probability in [0, 1), got {self.drop_path}")
        object.__setattr__(self, "drop_path", float(self.drop_path))  # 0 and 0.0 have one hash

    def decisions(self) -> dict[str, tuple[Choice, ...]]:
        found: dict[str, tuple[Choice, ...]] = {}
        for block in range(1, self.blocks + 1):
            states, operations = tuple(range(block + 1)), tuple(OPERATIONS)
            found[f"block{block}_left_input"] = states
            found[f"block{block}_right_input"] = states
            found[f"block{block}_left_op"] = operations
            found[f"block{block}_right_op"] = operations
            found[f"block{block}_combine"] = COMBINE
        return found

    def canonical_blocks(self, choices: Mapping[str, Choice]) -> tuple[Block, ...]:
        """Return the cell's blocks as all cells that differ in names and sides alone have them."""
        labels: list[str] = [*INPUTS]
        reads: list[list[tuple[str, int]]] = [[], []]
        for block in range(1, self.blocks + 1):
            labels.append(str(choices[f"block{block}_combine"]))
            reads.append(
                [
                    (
                        str(choices[f"block{block}_{side}_op"]),
                        int(choices[f"block{block}_{side}_input"]),
                    )
                    for side in ("left", "right")
                ]
            )
        order = [node for node in canonical_order(labels, reads) if node >= len(INPUTS)]
        place = {node: i for i, node in enumerate([*range(len(INPUTS)), *order])}
        return tuple(
            Block(labels[node], tuple(sorted((op, place[state]) for op, state in reads[node])))
            for node in order
        )

    def graph(self, choices: Mapping[str, Choice]) -> object:
        blocks = [[block.combine, *block.reads] for block in self.canonical_blocks(choices)]
        settings = {name: value for name, value in self.settings().items() if name != "blocks"}
        return {"cell": blocks, **settings}

    def features(self, choices: Mapping[str, Choice]) -> dict[str, float]:
        """Return counts in the cell, the same names for every cell.

        ``op:X`` operations X; ``pair:X>Y`` operations Y on a state that comes from X, an operation
        of the block read or an input; ``uses:X`` reads of input X; ``concat`` blocks that
        concatenate; ``loose_ends`` blocks in the output; ``longest_path`` in blocks.
        """
        found: dict[str, float] = {f"op:{name}": 0 for name in OPERATIONS}
        found |= {f"pair:{a}>{b}": 0 for a, b in product([*INPUTS, *OPERATIONS], OPERATIONS)}
        found |= {f"uses:{name}": 0 for name in INPUTS}
        blocks = self.canonical_blocks(choices)
        sources = [[name] for name in INPUTS]
        longest = [0 for _ in INPUTS]
        for block in blocks:
            for operation, state in block.reads:
                found[f"op:{operation}"] += 1
                for source in sources[state]:
                    found[f"pair:{source}>{operation}"] += 1
                if state < len(INPUTS):
                    found[f"uses:{INPUTS[state]}"] += 1
            sources.append([operation for operation, _ in block.reads])
            longest.append(1 + max(longest[state] for _, state in block.reads))
        found["concat"] = sum(block.combine == "concat" for block in blocks)
        found["loose_ends"] = len(loose_ends(blocks))
        found["longest_path"] = max(longest)
        return found

    def cell(self, architecture: Architecture) -> Cell:
        """Return the cell: ``h[i-1]`` (input 0), ``h[i]`` (input 1), the blocks, ``output``.

        Blocks are labelled by how they combine, edges by operations, those to the output by "".
        """
        blocks = self.canonical_blocks(dict(architecture.choices))
        nodes = (*INPUTS, *(block.combine for block in blocks), "output")
        edges = [
            (state, node, operation)
            for node, block in enumerate(blocks, start=len(INPUTS))
            for operation, state in block.reads
        ]
        edges += [(state, len(nodes) - 1, "") for state in loose_ends(blocks)]
        return Cell(nodes, tuple(edges))

    def hidden_states(self, architecture: Architecture) -> dict[str, int]:
        """Return every built cell, and the output.

        Layers are the convolutions and the linear layer along the longest path.
        """
        blocks = self.canonical_blocks(dict(architecture.choices))
        layers = layers_before(blocks, self.cells)
        found = {f"cell{number}": count for number, count in layers.items()}
        return {**found, "": max(layers.values()) + 1}

    def network(self, architecture: Architecture, task: Task) -> nn.Module:
        if min(task.shape) < 1:
            raise InvalidArchitecture(
                f"nasnet: expected images of at least 1 channel and 1 x 1 pixels, got {task.shape}"
            )
        blocks = self.canonical_blocks(dict(architecture.choices))
        return CellNetwork(
            blocks,
            cells=self.cells,
            filters=self.filters,
            stem=self.filters * self.stem_multiplier,
            stem_stride=self.stem_stride,
            drop_path=self.drop_path,
            channels=task.shape[0],
            classes=task.classes,
        )
