"""The canonical order of small graphs, against every permutation."""

from __future__ import annotations

import random
from itertools import permutations, product

import pytest

from search_spaces.graphs import canonical_order


def described(labels, reads, order):
    """Return what the order promises to be equal for isomorphic graphs."""
    place = {node: i for i, node in enumerate(order)}
    return tuple(
        (labels[node], tuple(sorted((label, place[source]) for label, source in reads[node])))
        for node in order
    )


def canonical(labels, reads):
    order = canonical_order(labels, reads)
    assert sorted(order) == list(range(len(labels)))
    found = described(labels, reads, order)
    assert all(source < node for node, (_, edges) in enumerate(found) for _, source in edges)
    return found


def smallest_of_all(labels, reads):
    """Return the smallest description over all permutations: equal for isomorphic graphs alone."""
    return min(described(labels, reads, order) for order in permutations(range(len(labels))))


def shuffled(labels, reads, rng):
    """Return the same graph with other indices, edges in another order."""
    left, order = set(range(len(labels))), []
    while left:
        ready = [node for node in left if not left & {source for _, source in reads[node]}]
        order.append(rng.choice(sorted(ready)))
        left.remove(order[-1])
    place = {node: i for i, node in enumerate(order)}
    again = [[(label, place[source]) for label, source in reads[node]] for node in order]
    for edges in again:
        rng.shuffle(edges)
    return [labels[node] for node in order], again


def random_graph(nodes, rng):
    labels = [rng.choice(["x", "x", "y"]) for _ in range(nodes)]
    reads = [
        [(rng.choice("aab"), rng.randrange(node)) for _ in range(rng.randrange(4)) if node]
        for node in range(nodes)
    ]
    return labels, reads


def same_partition(left, right):
    return len(set(left)) == len(set(right)) == len(set(zip(left, right, strict=True)))


def test_all_graphs_on_four_nodes_fall_into_their_isomorphism_classes():
    """4,096 graphs: between each two nodes no edge, one of two kinds, or two parallel ones."""
    pairs = [(source, node) for node in range(4) for source in range(node)]
    ours, brute = [], []
    for kinds in product(("", "a", "b", "aa"), repeat=6):
        reads = [[], [], [], []]
        for (source, node), kind in zip(pairs, kinds, strict=True):
            reads[node] += [(label, source) for label in kind]
        ours.append(canonical("xxxx", reads))
        brute.append(smallest_of_all("xxxx", reads))
    assert same_partition(ours, brute)
    assert 100 < len(set(ours)) < 4096


def test_random_graphs_on_six_nodes_fall_into_their_isomorphism_classes():
    rng = random.Random(0)
    graphs = [random_graph(rng.choice([5, 6]), rng) for _ in range(60)]
    graphs += [shuffled(*graph, rng) for graph in graphs]
    ours = [canonical(*graph) for graph in graphs]
    assert same_partition(ours, [smallest_of_all(*graph) for graph in graphs])
    assert ours[:60] == ours[60:]


def test_other_indices_give_the_same_description():
    rng = random.Random(1)
    for _ in range(100):
        graph = random_graph(rng.randrange(8, 16), rng)
        assert canonical(*graph) == canonical(*shuffled(*graph, rng))


def ring(*sizes):
    """Return rings of as many sinks, each of which reads two neighbouring sources."""
    sources = sum(sizes)
    reads, start = [[] for _ in range(sources)], 0
    for size in sizes:
        reads += [[("", start + i), ("", start + (i + 1) % size)] for i in range(size)]
        start += size
    return ["x"] * (2 * sources), reads


def test_ties_that_counting_neighbours_never_breaks_are_broken():
    """All nodes of these have equal neighbours, and their neighbours too; none are twins."""
    rng = random.Random(2)
    kinds = [ring(7), ring(3, 4), ring(6), ring(3, 3), ring(9), ring(3, 3, 3), ring(4, 5)]
    found = [canonical(*kind) for kind in kinds]
    assert len(set(found)) == len(kinds)
    for kind, description in zip(kinds, found, strict=True):
        for _ in range(5):
            assert canonical(*shuffled(*kind, rng)) == description


@pytest.mark.parametrize("part", [["add"], ["op", "op", "add"]], ids=len)
def test_parts_that_are_alike_do_not_multiply_the_work(part):
    """Twelve equal nodes, or subgraphs, have 12! orders: trying them all would never end."""
    labels, reads = ["input"], [[]]
    for _ in range(12):
        start = len(labels)
        labels += part
        reads += [[("", 0)] for _ in part]
        reads[-1] += [("", node) for node in range(start, len(labels) - 1)]
    reads.append([("", node) for node, label in enumerate(labels) if label == "add"])
    labels.append("output")
    again = shuffled(labels, reads, random.Random(3))
    assert canonical(labels, reads) == canonical(*again)


def test_the_empty_graph_has_an_order():
    assert canonical_order([], []) == []


@pytest.mark.parametrize(
    ("labels", "reads", "message"),
    [
        ("xy", [[], [("", 1)]], "expected node 1 to read nodes below 1"),
        ("xy", [[("", 1)], []], "expected node 0 to read nodes below 0"),
        ("xy", [[], [("", -1)]], "expected node 1"),
        ("xy", [[]], "expected the reads of 2 nodes, got those of 1"),
    ],
)
def test_what_is_no_graph_is_refused(labels, reads, message):
    with pytest.raises(ValueError, match=message):
        canonical_order(labels, reads)
