"""Small labelled graphs: a cell to draw, and one order for all that are isomorphic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Edges = Sequence[tuple[str, int]]
"""What a node reads: (edge label, index of an earlier node), the order playing no part."""

Description = list[tuple[str, list[tuple[str, int]]]]
"""Of every node in some order its label and, sorted, its edges, indices being those of the order"""


@dataclass(frozen=True)
class Cell:
    """A directed acyclic graph with labels.

    Attributes:
        nodes: the label of every node, sources first; a node reads earlier ones only.
        edges: ``(from, to, label)``, nodes by index; several may join the same two nodes.
    """

    nodes: tuple[str, ...]
    edges: tuple[tuple[int, int, str], ...]


def canonical_order(labels: Sequence[str], reads: Sequence[Edges]) -> list[int]:
    """Return the nodes in an order that isomorphic graphs share.

    Listing labels and reads (renumbered, sorted) in this order gives equal lists for two graphs if
    and only if they are isomorphic. Sources come before what reads them.

    Nodes are told apart by what they read and what reads them, again and again (colour refinement).
    Where that leaves ties, each tied node is tried as the first of them, and the smallest
    description wins. For graphs of up to some 20 nodes.

    Args:
        labels: of every node.
        reads: of every node, from nodes with a lower index.

    Raises:
        ValueError: labels and reads of unequal number, or a node that reads itself or a later one.
    """
    if len(labels) != len(reads):
        raise ValueError(f"expected the reads of {len(labels)} nodes, got those of {len(reads)}")
    depth: list[int] = []
    for node, edges in enumerate(reads):
        if not all(0 <= source < node for _, source in edges):
            raise ValueError(f"expected node {node} to read nodes below {node}, got {list(edges)}")
        depth.append(max((depth[source] + 1 for _, source in edges), default=0))
    graph = _Graph(labels, reads)
    # Refinement only splits colours, and never reorders them: depth first stays topological.
    return graph.smallest(graph.refine(_ranks(list(zip(depth, labels, strict=True)))))


class _Graph:
    """A graph with its edges in both directions. Colours are the ranks of its nodes, from 0."""

    def __init__(self, labels: Sequence[str], reads: Sequence[Edges]) -> None:
        self.labels, self.reads = labels, reads
        self.readers: list[list[tuple[str, int]]] = [[] for _ in labels]
        for node, edges in enumerate(reads):
            for label, source in edges:
                self.readers[source].append((label, node))

    def refine(self, colours: list[int]) -> list[int]:
        """Split colours until nodes of one colour read, and are read by, the same colours."""
        while True:
            finer = _ranks(
                [
                    (
                        colour,
                        tuple(sorted((label, colours[other]) for label, other in reads)),
                        tuple(sorted((label, colours[other]) for label, other in readers)),
                    )
                    for colour, reads, readers in zip(
                        colours, self.reads, self.readers, strict=True
                    )
                ]
            )
            if finer == colours:
                return colours
            colours = finer

    def smallest(self, colours: list[int]) -> list[int]:
        """Return the order of the smallest description that breaking the ties can give."""
        if not (tied := _first_tie(colours)):
            return sorted(range(len(colours)), key=colours.__getitem__)
        orders, seen = [], []
        for node in tied:
            split = self.refine(_ranks([(c, i != node) for i, c in enumerate(colours)]))
            # Two orders with one description are a symmetry of the graph that moves one tied node
            # to the other: what lies behind the second is what lay behind the first.
            any_description = self.describe(self.any_order(split))
            if any_description not in seen:
                seen.append(any_description)
                orders.append(self.smallest(split))
        return min(orders, key=self.describe)

    def any_order(self, colours: list[int]) -> list[int]:
        """Return the order when of tied nodes the first at hand always comes first."""
        while tied := _first_tie(colours):
            colours = self.refine(_ranks([(c, i != tied[0]) for i, c in enumerate(colours)]))
        return sorted(range(len(colours)), key=colours.__getitem__)

    def describe(self, order: list[int]) -> Description:
        """Return labels and reads in ``order``."""
        place = {node: i for i, node in enumerate(order)}
        return [
            (self.labels[node], sorted((label, place[other]) for label, other in self.reads[node]))
            for node in order
        ]


def _ranks(keys: Sequence[Any]) -> list[int]:
    """Return how many keys are smaller than each: 0 for the smallest, equal ones share theirs."""
    smaller: dict[Any, int] = {}
    for place, key in enumerate(sorted(keys)):
        smaller.setdefault(key, place)
    return [smaller[key] for key in keys]


def _first_tie(colours: list[int]) -> list[int]:
    """Return the nodes of the lowest colour that several share."""
    for colour in sorted(set(colours)):
        if len(nodes := [i for i, c in enumerate(colours) if c == colour]) > 1:
            return nodes
    return []
