"""What trials ask for and when there is room, with ``trials_per_gpu: auto``; without Ray."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from launch.cluster.climb import FIRST
from launch.cluster.nodes import Cluster
from launch.cluster.peaks import FEWEST
from launch.cluster.placement import PEAK, placement_of
from launch.cluster.slots import Node as Living
from launch.cluster.spread import Spread
from launch.config.sections import Resources
from nas.data.config import DataConfig
from nas.trial.recipe import Recipe
from nas.trial.trial import Trial
from search_spaces import Architecture

GB = 10**9


@dataclass(frozen=True)
class Node:
    id: str
    cpus: int = 64
    gpus: float = 2


def trial(size):
    net = Architecture("nets", (), (("size", size),), f"{size:016x}")
    return Trial(net, Recipe(batch_size=64), DataConfig(), ())


def placement(nodes=(Node("a"),), on_gpu=True, card=80 * GB, **resources):
    resources = {"trials_per_gpu": "auto", "memory_margin": 0.0} | resources
    return placement_of(
        Resources(**resources),
        lambda: nodes,
        lambda: {node.id: (card,) * int(node.gpus) for node in nodes},
        lambda: on_gpu,
        lambda trial: trial.architecture["size"] * GB,
        lambda line: None,
    )


def fill(place, size, most=50):
    """Hand out trials while there is room, all of which begin; return what they asked for."""
    asked = []
    while place.has_room() and len(asked) < most:
        number = 1000 * size + len(asked)
        asked.append(place.asks(number, trial(size)))
        place.began(number)
    return asked


def test_trials_are_proposed_until_the_cards_are_full():
    place = placement()
    assert fill(place, 1) == [{"gpu": 1 / FIRST}] * 2 * FIRST
    place.left(1000)
    assert len(fill(place, 1)) == 1
    assert len(fill(placement(cpu=20), 1)) == 3  # as many as there are cores for
    assert len(fill(placement(workers=2), 1)) == 2
    assert len(fill(placement(trials_per_gpu=8), 1, most=20)) == 20  # not for it to say
    assert fill(placement(trials_per_gpu=8), 1, most=1) == [{}]
    assert fill(placement(gpu=0.5), 1, most=1) == [{}]


def test_one_that_is_too_large_for_what_is_free_waits_and_few_do():
    place = placement()
    asked = fill(place, 1, most=2 * FIRST - 1)
    assert len(asked) == 2 * FIRST - 1
    assert place.asks(1, trial(70)) == {"gpu": 1.0}
    assert not place.has_room()  # one waits, which is as many as may for two cards
    many = placement([Node(f"n{i}", gpus=8) for i in range(4)])
    assert many.has_room()
    fill(many, 1, most=32 * FIRST - 3)
    many.asks(1, trial(70))
    assert many.has_room()  # of 32 cards two may: smaller ones go past the first
    many.asks(2, trial(70))
    assert not many.has_room()


def test_what_may_come_is_waited_for():
    place = placement(nodes=())
    assert place.has_room()  # an autoscaler adds nodes for what waits
    place.asks(0, trial(1))
    assert not place.has_room()


def test_measured_peaks_change_what_is_asked_for():
    place = placement()
    for number in range(FEWEST):
        assert place.asks(number, trial(20))["gpu"] == pytest.approx(1 / 3)
        place.began(number)
        outcome = {"status": "complete", "scores": {}, PEAK: 30 * GB}
        place.left(number, outcome, ["a", "host", [0]])
    assert place.asks(99, trial(20)) == {"gpu": 0.5}


def test_peaks_of_micro_batches_say_nothing_about_whole_ones():
    place = placement()
    for number in range(FEWEST):
        for _ in range(2):
            place.ran_out(number, trial(30), alone=False)
        assert place.asks(number, trial(30))["micro_batch"] == 32
        place.left(number, {"status": "complete", "scores": {}, PEAK: 15 * GB})
    assert place.asks(99, trial(30)) == {"gpu": 0.5}


def test_nothing_is_asked_for_where_there_are_no_gpus():
    place = placement([Node("a", gpus=0)], on_gpu=False)
    assert fill(place, 1, most=100) == [{}] * 100


def requested(**config):
    """Return what Ray is asked for, of a trial that usually takes a quarter of a GPU."""
    node = Living("n", "node", 16, 2.0)
    spread = Spread(Cluster(Resources(cpu=2), living=lambda: [node]))
    found = spread.of(config)
    arguments = found._bound.arguments
    return found.bundles[0], (arguments.get("bundle_label_selector") or [{}])[0]


def test_ray_is_asked_for_it():
    assert requested() == ({"CPU": 2, "GPU": 0.25}, {})
    assert requested(gpu=0.5)[0] == {"CPU": 2, "GPU": 0.5}
    assert requested(gpu=0.125, alone=True)[0] == {"CPU": 2, "GPU": 1}
    label = "ray.io/node-id"
    assert requested(only=["x", "y"])[1] == {label: "in(x,y)"}
    assert requested(only=["x", "y"], avoid=["x"])[1] == {label: "in(y)"}
    assert requested(only=["x"], avoid=["x"])[1] == {label: "!in(x)"}
    assert requested(avoid=["x"])[1] == {label: "!in(x)"}
