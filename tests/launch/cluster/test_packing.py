"""Shares of a GPU, without Ray: by memory, by what pays, and where there is room."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

import pytest

from launch.cluster.climb import COUNTS
from launch.cluster.packing import Packing, Request, Room, room, share_of, without_room
from launch.cluster.peaks import CONTEXT, FEWEST, Peaks
from launch.config.config import load_config, parse_config
from nas.data.config import DataConfig
from nas.errors import InputError
from nas.trial.recipe import Recipe
from nas.trial.trial import Trial
from search_spaces import Architecture

GB = 10**9


@dataclass(frozen=True)
class Node:
    id: str
    cpus: int = 64
    gpus: float = 8


def trial(number=0, **recipe):
    net = Architecture("nets", (), (("number", number),), f"{number:016x}")
    return Trial(net, Recipe(**recipe), DataConfig(), ())


def packing(estimate, cards, said=None, margin=0.25):
    peaks = Peaks(estimate, margin)
    return Packing(peaks, lambda: cards, (said if said is not None else []).append)


def test_a_share_holds_what_is_expected_and_few_shares_are_used():
    draws = random.Random(0)
    needs = {n: draws.uniform(0.05, 60) * GB for n in range(300)}
    card, shares = 80 * GB, set()
    packs = packing(lambda t: needs[t.architecture["number"]], {"a": (card,)})
    for number, need in needs.items():
        for most in (1, 4, 16):
            share = packs.request(trial(number), most).gpu
            expected = need * 1.25 + CONTEXT
            assert share * card >= min(expected, card) * (1 - 1e-3)
            larger = [c for c in COUNTS if c <= most and c > round(1 / share)]
            assert all(c * expected > card for c in larger)  # no more of them would have fitted
            shares.add(share)
    assert len(shares) == len(COUNTS)


def test_cards_that_differ():
    """A share counts on the smallest card on which a trial may land; a large one picks its node."""
    cards = {"small": (24 * GB, 24 * GB), "large": (80 * GB,), "mixed": (80 * GB, 24 * GB)}
    packs = packing(lambda t: t.architecture["number"] * GB, cards)
    assert packs.request(trial(4), 16) == Request(share_of(4))  # 5.5 of 24
    assert packs.request(trial(30), 16) == Request(share_of(2), ("large",))  # 38 of 80
    assert packs.request(trial(90), 16) == Request(1.0, ("large",))


def test_unknown_memory_is_said_once_and_gets_the_usual_share():
    said = []
    packs = packing(lambda t: GB, {"a": (), "b": ()}, said)
    assert [packs.request(trial(), most).gpu for most in (16, 4, 2)] == [0.25, 0.25, 0.5]
    assert len(said) == 1
    assert "a, b" in said[0]
    half = packing(lambda t: GB, {"a": (80 * GB,), "b": ()}, said)
    assert half.request(trial(), 16).gpu == 0.25
    assert "of b is" in said[1]
    nothing = packing(None, {"a": (80 * GB,)}, said)
    assert nothing.request(trial(), 16).gpu == 0.25
    assert len(said) == 2


def test_an_architecture_that_cannot_be_estimated_gets_the_usual_share():
    def broken(trial):
        raise RuntimeError("no such layer")

    assert packing(broken, {"a": (80 * GB,)}).request(trial(), 16).gpu == 0.25


def test_an_estimate_that_is_not_there_yet_is_asked_for_again():
    found = iter([None, GB])
    packs = packing(lambda t: next(found), {"a": (80 * GB,)})
    assert [packs.request(trial(), 16).gpu for _ in range(3)] == [0.25, 1 / 16, 1 / 16]


def test_estimates_are_asked_for_once_and_corrected_by_a_high_quantile():
    asked = []

    def estimate(trial):
        asked.append(trial)
        return 10 * GB

    peaks = Peaks(estimate, margin=0.5)
    assert peaks.of(trial()) == 15 * GB + CONTEXT
    draws = random.Random(0)
    ratios = [draws.lognormvariate(math.log(1.5), 0.1) for _ in range(60)]
    for seen, ratio in enumerate(ratios):
        if seen < FEWEST:
            assert peaks.correction() == 1
        peaks.measured(trial(), int(ratio * 10 * GB))
    above = sum(ratio > peaks.correction() * (1 + 1e-9) for ratio in ratios)
    assert above == 6  # a tenth
    assert peaks.of(trial()) == pytest.approx(15 * GB * peaks.correction() + CONTEXT)
    assert len(asked) == 1
    peaks.of(replace(trial(), recipe=Recipe(batch_size=64)))
    assert len(asked) == 2
    for _ in range(64):  # what is old is forgotten, and no correction is without bounds
        peaks.measured(trial(), 1000 * GB)
    assert peaks.correction() == 4


def test_room_is_never_more_than_there_is():
    draws = random.Random(1)
    nodes = [Node("a", 10, 2), Node("b", 3, 1), Node("c", 64, 0)]
    free, taken = Room(nodes), []
    for _ in range(2000):
        if taken and draws.random() < 0.45:
            free.give_back(*taken.pop(draws.randrange(len(taken))))
        else:
            request = Request(share_of(draws.choice(COUNTS)), draws.choice([(), ("b",)]))
            place = free.take(request)
            if place is not None:
                assert not request.only or place[0] in request.only
                taken.append((request, place))
        for node in nodes:
            there = [(r, p[1]) for r, p in taken if p[0] == node.id]
            assert len(there) <= node.cpus
            for gpu in range(int(node.gpus)):
                assert sum(r.gpu for r, g in there if g == gpu) <= 1 + 1e-9
    assert taken


def test_nodes_share_the_load_and_gpus_are_filled_one_by_one():
    """As Ray does: the node with the most left, and there the GPU with the least that is enough."""
    half, quarter, whole = (Request(share_of(count)) for count in (2, 4, 1))
    free = Room([Node("a", gpus=2), Node("b", gpus=2)])
    taken = [free.take(half) for _ in range(2)] + [free.take(quarter) for _ in range(2)]
    assert taken == [("a", 0), ("b", 0), ("a", 0), ("b", 0)]
    assert [free.take(whole) for _ in range(3)] == [("a", 1), ("b", 1), None]


def test_room_for_one_more():
    nodes = [Node("a", gpus=1), Node("b", gpus=1)]
    whole, half, quarter = (Request(share_of(count)) for count in (1, 2, 4))
    assert room(nodes, [quarter, whole], half)  # however they came
    assert not room(nodes, [half, whole], whole)
    assert not room(nodes, [half, half, whole], quarter)
    assert without_room(nodes, [half, quarter], [whole, quarter]) == 1  # Ray spreads what runs
    assert without_room(nodes, [half], [whole, whole, quarter]) == 1
    assert room(nodes, [half, quarter], quarter, waiting=[whole, whole])
    assert not room([Node("a", cpus=2, gpus=1)], [quarter, quarter], quarter)
    assert not room(nodes, [], Request(0.5, ("elsewhere",)))


def test_the_configuration_knows_auto():
    config = load_config("digits", ["resources.trials_per_gpu=auto"])
    assert config.resources.trials_per_gpu == "auto"
    assert parse_config(config.resolved()).resources == config.resources
    assert load_config("digits").resources.trials_per_gpu == 4
    for wrong in ("0", "2.5", "most", "true"):
        with pytest.raises(InputError, match=r"^resources\.trials_per_gpu: expected auto or a who"):
            load_config("digits", [f"resources.trials_per_gpu={wrong}"])
    with pytest.raises(InputError, match=r"^resources\.memory_margin: expected .* got -1"):
        load_config("digits", ["resources.memory_margin=-1"])
