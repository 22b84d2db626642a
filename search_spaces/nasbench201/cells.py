"""What the 15,625 cells of NAS-Bench-201 (Dong & Yang 2020) compute.

A cell sums, in each of its nodes, one operation on each earlier node. Many cells are the same
function. :func:`reduced` finds it: what an operation makes of zero is zero, skips and sums are
resolved, average pools, which are linear and have no weights, stand in front of what reads them,
and what the output does not read is left out. What remains are convolutions, each with weights of
its own, that read weighted sums.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cache
from itertools import product
from types import MappingProxyType
from typing import NamedTuple

from search_spaces.graphs import Cell, canonical_order

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))  # (from, to), as the string lists them
KERNELS = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}
LABELS = {
    "skip_connect": "skip",
    "nor_conv_1x1": "conv 1x1",
    "nor_conv_3x3": "conv 3x3",
    "avg_pool_3x3": "avg pool 3x3",
}
NODES = ("input", "node 1", "node 2", "output")

Operations = tuple[str, ...]
"""One operation for each of EDGES."""


class Term(NamedTuple):
    """``times`` x the output of the part ``source``, average-pooled ``pools`` times."""

    source: int
    pools: int
    times: int


class Part(NamedTuple):
    """One of what a reduced cell consists of: ``operation`` on the sum of ``reads``."""

    operation: str
    reads: tuple[Term, ...]


@cache
def reduced(operations: Operations) -> tuple[Part, ...]:
    """Return the function of a cell: equal for two cells if and only if their functions are.

    Convolutions are taken for functions of their own, of which nothing is known but that zero gives
    zero. (Batch norm all but undoes a factor before a convolution: still 2x and x are two inputs.)

    Returns:
        The input, the convolutions that the output depends on, each after those it reads, and last
        the output. Nothing if the output is zero.
    """
    parts = [Part("input", ())]
    sums: list[Counter[tuple[int, int]]] = [Counter({(0, 0): 1}), Counter(), Counter(), Counter()]
    for (source, target), operation in zip(EDGES, operations, strict=True):
        terms = sums[source]
        if operation in KERNELS and terms:
            parts.append(Part(operation, _terms(terms)))
            terms = Counter({(len(parts) - 1, 0): 1})
        elif operation == "avg_pool_3x3":
            terms = Counter({(part, pools + 1): n for (part, pools), n in terms.items()})
        if operation != "none":
            sums[target] += terms
    if not sums[3]:
        return ()
    parts.append(Part("output", _terms(sums[3])))
    return _renumbered(parts, _read_by_output(parts))


def _terms(found: Counter[tuple[int, int]]) -> tuple[Term, ...]:
    return tuple(sorted(Term(source, pools, times) for (source, pools), times in found.items()))


def _read_by_output(parts: list[Part]) -> list[int]:
    live, todo = {0}, [len(parts) - 1]
    while todo:
        live.add(part := todo.pop())
        todo += [term.source for term in parts[part].reads]
    return sorted(live)


def _renumbered(parts: list[Part], live: list[int]) -> tuple[Part, ...]:
    """Return the live parts in an order that isomorphic cells share."""
    place = {part: i for i, part in enumerate(live)}
    order = canonical_order(
        [parts[part].operation for part in live],
        [[(f"{t.times} {t.pools}", place[t.source]) for t in parts[part].reads] for part in live],
    )
    place = {live[i]: rank for rank, i in enumerate(order)}
    return tuple(
        Part(
            parts[live[i]].operation,
            tuple(sorted(t._replace(source=place[t.source]) for t in parts[live[i]].reads)),
        )
        for i in order
    )


@cache
def expression(operations: Operations) -> str:
    """Return the string by which the benchmark counts 6,466 cells (``to_unique_str(True)``).

    It knows the zero of none, and of an operation on a first node that is zero, but keeps it as a
    term; and it does not tell one convolution read twice from two convolutions of the same thing.
    """
    nodes = ["0"]
    for target in (1, 2, 3):
        terms = []
        for (source, end), operation in zip(EDGES, operations, strict=True):
            if end != target:
                continue
            if operation == "none" or nodes[source] == "#":
                terms.append("#")
            elif operation == "skip_connect":
                terms.append(nodes[source])
            else:
                terms.append(f"({nodes[source]})@{operation}")
        nodes.append("+".join(sorted(terms)))
    return nodes[3]


@cache
def features(operations: Operations) -> Mapping[str, float]:
    """Return 40 counts of paths, and 3 of operations in what is built.

    Paths lead from the input to the output and are told apart by their operations (the path
    encoding of BANANAS, White et al. 2021), skips left out: a skip is no operation, and a path
    through none does not count. Equal for cells that reduce to the same parts.
    """
    parts = reduced(operations)
    paths: list[Counter[tuple[str, ...]]] = []  # to every part, its own operation included
    for part in parts:
        found: Counter[tuple[str, ...]] = Counter()
        own = (part.operation,) if part.operation in KERNELS else ()
        for term in part.reads:
            for path, times in paths[term.source].items():
                found[(*path, *["avg_pool_3x3"] * term.pools, *own)] += times * term.times
        paths.append(found if part.reads else Counter({(): 1}))
    live = Counter(part.operation for part in parts)
    live["avg_pool_3x3"] = sum(max((t.pools for t in p.reads), default=0) for p in parts)
    to_output = paths[-1] if paths else Counter()
    names = OPERATIONS[2:]
    words = [word for length in range(4) for word in product(names, repeat=length)]
    return MappingProxyType(
        {f"path:{'>'.join(word) or 'skip_connect'}": float(to_output[word]) for word in words}
        | {f"op:{operation}": float(live[operation]) for operation in names}
    )


def longest_path(parts: tuple[Part, ...]) -> int:
    """Return how many convolutions lie on the longest path from input to output."""
    lengths: list[int] = []
    for part in parts:
        before = max((lengths[term.source] for term in part.reads), default=0)
        lengths.append(before + (part.operation in KERNELS))
    return lengths[-1] if lengths else 0


def drawn(operations: Operations) -> Cell:
    """Return the nodes and operations that the output depends on, as the benchmark has them."""
    edges = {
        ends: LABELS[operation]
        for ends, operation in zip(EDGES, operations, strict=True)
        if operation != "none"
    }
    fed, read = {0}, {3}
    for source, target in edges:  # a node's own input comes before what reads the node
        fed |= {target} if source in fed else set()
    for source, target in reversed(edges):
        read |= {source} if target in read else set()
    nodes = sorted((fed & read) | {0, 3})
    return Cell(
        tuple(NODES[node] for node in nodes),
        tuple(
            (nodes.index(source), nodes.index(target), label)
            for (source, target), label in edges.items()
            if {source, target} <= fed & read
        ),
    )
