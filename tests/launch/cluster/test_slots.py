"""How many trials fit on nodes that come and go, without any."""

from __future__ import annotations

from dataclasses import replace

import pytest

from launch.cluster.nodes import Cluster
from launch.cluster.slots import LEAST, MOST, Node, Slots, slots, unmet, wanted
from launch.config.config import unchecked_config
from launch.config.sections import Resources
from nas.errors import InputError

HEAD = Node("h", "head", 0)
BOX = Node("b", "box", 4, 2.0)
PLAIN = Node("p", "plain", 8)
BIG = Node("g", "gpu-box", 16, 8.0)


@pytest.mark.parametrize(
    ("asked", "nodes", "expected"),
    [
        ({"cpu": 2}, [PLAIN, PLAIN], Slots(8, 2, 0.0)),
        ({"cpu": 3}, [PLAIN, PLAIN], Slots(4, 3, 0.0)),
        ({"workers": 1}, [PLAIN], Slots(1, 1, 0.0)),
        ({"trials_per_gpu": 4}, [BOX, PLAIN], Slots(4, 1, 0.25)),  # box has four cores
        ({"trials_per_gpu": 3, "cpu": 1}, [BIG], Slots(16, 1, 1 / 3)),
        ({"gpu": 1.0}, [BOX, PLAIN], Slots(2, 1, 1.0)),
        ({"gpu": 0.5}, [BOX], Slots(4, 1, 0.5)),
        ({"gpu": 2}, [BOX, BIG], Slots(5, 2, 2.0)),
        ({"processes": 2, "trials_per_gpu": 4}, [BOX, PLAIN], Slots(1, 2, 2.0)),
        ({"processes": 2, "cpu": 2}, [PLAIN, PLAIN], Slots(4, 4, 0.0)),
        ({"processes": 4, "cpu": 2, "gpu": 0}, [BOX, PLAIN], Slots(1, 8, 0.0)),
        ({}, [HEAD], Slots(0, 1, 0.0)),
        ({}, [replace(BOX, draining=True), PLAIN], Slots(0, 1, 0.25)),
    ],
)
def test_what_fits(asked, nodes, expected) -> None:
    assert slots(Resources(**asked), nodes) == expected


@pytest.mark.parametrize(
    ("workers", "running", "waiting", "expected"),
    [
        (None, 0, 3, 3),
        (None, 0, 1000, LEAST),
        (None, 12, 1000, 12),  # doubling
        (None, 500, 1000, MOST),
        (10, 6, 1000, 4),
        (10, 10, 1000, 0),
        (None, 12, 0, 0),
    ],
)
def test_how_many_more_trials_nodes_are_asked_for(workers, running, waiting, expected) -> None:
    assert wanted(Resources(workers=workers), Slots(running, 1, 0.0), waiting) == expected


@pytest.mark.parametrize(
    ("asked", "nodes", "said"),
    [
        ({"cpu": 9}, [PLAIN, BOX], "resources.cpu: expected at most the 8 cores .* got 9"),
        ({"gpu": 1.0}, [PLAIN], "resources.gpu: expected at most the 0 GPUs .* got 1"),
        ({"cpu": 8, "gpu": 1.0}, [PLAIN, BOX], "both 8 cores and 1 GPUs, got plain with 8 and 0"),
        ({}, [HEAD], "resources.cpu: expected at most the 0 cores"),
        ({"cpu": 8}, [replace(PLAIN, draining=True)], "at most the 0 cores"),
        ({"cpu": 8}, [PLAIN], None),
        ({"gpu": 4}, [BOX, PLAIN], "resources.gpu: expected at most the 2 GPUs .* got 4"),
        (
            {"processes": 5, "cpu": 2},
            [PLAIN],
            "resources.processes: expected at most the 8 cores .* 5 processes of resources.cpu=2",
        ),
    ],
)
def test_what_no_node_has_is_named(asked, nodes, said) -> None:
    found = unmet(Resources(**asked), nodes)
    if said is None:
        assert found is None
    else:
        with pytest.raises(InputError, match=said):
            raise InputError(found)


class World:
    """Nodes and a clock that a test moves."""

    def __init__(self, *nodes: Node) -> None:
        self.now, self.there = 0.0, list(nodes)
        self.said: list[str] = []
        self.asked: list[tuple[float, int, float]] = []
        self.plan: dict[int, list[Node]] = {}

    def cluster(self, **resources) -> Cluster:
        return Cluster(
            Resources(**resources),
            self.said.append,
            living=lambda: self.there,
            ask=lambda count, slots: self.asked.append((self.now, count, slots.gpu)),
            clock=lambda: self.now,
        )

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.there = self.plan.get(round(self.now), self.there)


def test_a_search_waits_for_its_first_node_and_says_so_once() -> None:
    world = World(HEAD)
    world.plan[7] = [HEAD, PLAIN]
    cluster = world.cluster(wait_seconds=60)
    cluster.wait_for_room(world.sleep)
    assert 7 <= world.now <= 8
    assert cluster.slots() == Slots(8, 1, 0.0)
    waiting, joined = world.said
    assert waiting.endswith("waiting up to 60 s for a node (resources.wait_seconds)")
    assert joined == "node plain joined (8 cores): 8 trials at a time"


def test_a_search_waits_no_longer_than_it_was_told() -> None:
    world = World(PLAIN)
    with pytest.raises(InputError, match=r"at most the 8 cores .* got 9 \(waited 60 s"):
        world.cluster(cpu=9, wait_seconds=60).wait_for_room(world.sleep)
    assert world.now == 60
    with pytest.raises(InputError, match="got 9$"):
        world.cluster(cpu=9, wait_seconds=0).wait_for_room(world.sleep)


def test_nodes_are_asked_for_while_there_are_trials_for_them() -> None:
    world = World(HEAD)
    world.plan[3] = [HEAD, PLAIN]
    cluster = world.cluster(wait_seconds=60)
    cluster.wait_for_room(world.sleep)
    assert world.asked == [(0, 1, 0.0), (1, 1, 0.0), (2, 1, 0.0), (3, 0, 0.0)]
    world.asked.clear()
    for tenth in range(41):
        world.now = 10 + tenth / 10
        cluster.want(5)
    assert world.asked == [(10, 5, 0.0), (11, 5, 0.0), (12, 5, 0.0), (13, 5, 0.0), (14, 5, 0.0)]


def test_nodes_that_join_leave_and_drain_change_what_fits() -> None:
    world = World(PLAIN)
    cluster = world.cluster(trials_per_gpu=2)
    assert cluster.slots() == Slots(8, 1, 0.0)
    for nodes in ([PLAIN, BOX], [PLAIN, replace(BOX, draining=True)], [PLAIN]):
        world.there, world.now = nodes, world.now + 2
        cluster.slots()
    assert world.said == [
        "node box joined (4 cores, 2 GPUs): 4 trials at a time on 0.5 GPU each",
        "node box is being drained: no more trials begin there: 0 trials at a time",
        "node box is gone: 0 trials at a time",  # the next GPU is waited for
    ]
    assert cluster.at_once() == 1


def test_looks_are_at_most_one_a_second() -> None:
    world, looks = World(PLAIN), []
    cluster = Cluster(
        Resources(),
        living=lambda: looks.append(world.now) or [PLAIN],
        clock=lambda: world.now,
    )
    for tenth in range(31):
        world.now = tenth / 10
        cluster.slots()
    assert looks == [0, 1, 2, 3]


def test_how_long_nothing_could_run() -> None:
    world = World(PLAIN)
    cluster = world.cluster(wait_seconds=9)
    waits = []
    for now, nodes, running in [
        (10, [PLAIN], 0),
        (20, [HEAD], 1),  # what runs still runs
        (30, [HEAD], 0),
        (35, [HEAD], 0),
        (40, [PLAIN], 0),
        (50, [HEAD], 0),
    ]:
        world.now, world.there = now, nodes
        waits.append(cluster.waited(running))
    assert waits == [0, 0, 0, 5, 0, 0]
    assert sum("waiting up to 9 s" in line for line in world.said) == 2


def test_old_runs_that_asked_for_two_gpus_still_open_and_use_one() -> None:
    """They reserved two and trained on one; a run that knows of processes keeps its own."""
    saved = unchecked_config({"resources": {"gpu": 2}, "made_with": {}}).resources
    assert (saved.gpu, saved.processes) == (1, 1)
    resources = Resources(gpu=2).model_dump()
    again = unchecked_config({"resources": resources, "made_with": {}}).resources
    assert (again.gpu, again.processes) == (2, 2)
