"""What is tried when memory runs out, without Ray: the steps, and what travels and is written."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from launch.cluster.faults import Faults
from launch.cluster.ladder import FLOOR, Ladder
from launch.cluster.placement import Placement
from nas.data.config import DataConfig
from nas.ledger.records import Record
from nas.ledger.table import table_of
from nas.trial.recipe import Recipe
from nas.trial.trial import Trial
from search_spaces import Architecture

GB = 10**9
NET = Architecture("nets", (), (("number", 0),), "0" * 16)
OOM = {"status": "oom", "reason": "too large", "scores": {}}


@dataclass(frozen=True)
class Node:
    id: str
    cpus: int = 8
    gpus: float = 1


def trial(batch):
    return Trial(NET, Recipe(batch_size=batch), DataConfig(), ())


def placement(cards=None, on_gpu=True):
    cards = {"a": (80 * GB,)} if cards is None else cards
    nodes = [Node(name, gpus=1 if on_gpu else 0) for name in cards]
    return Placement(lambda: nodes, lambda: cards, lambda: on_gpu)


def tried(batch, *, alone=False, cards=None, on_gpu=True):
    """Let a trial run out of memory until nothing is left; return what travelled, and its row."""
    place, faults, asked = placement(cards, on_gpu), Faults(lambda: ["a"]), []
    for _ in range(20):
        asked.append(place.asks(7, trial(batch)))
        place.began(7)
        place.left(7, OOM)
        step = place.ran_out(7, trial(batch), alone=alone)
        verdict = faults.out_of_memory(7, OOM, step, on_gpu=on_gpu)
        if verdict.outcome is not None:
            assert verdict.say is None
            return asked, place.row(7, verdict.outcome)
        assert (verdict.alone, verdict.at_once) == (not on_gpu, on_gpu)
        assert verdict.say == f"trial 7 ran out of memory: once more, {step.taken[-1]}"
    raise AssertionError("it never ends")


def test_every_step_is_taken_once_and_is_in_the_row():
    asked, row = tried(128)
    micro = [64, 32, 16]
    assert asked == [{}, {"gpu": 1.0}, *({"gpu": 1.0, "micro_batch": m} for m in micro)]
    assert row == {
        **OOM,
        "memory_steps": ["shared", "alone", *(f"micro-batch {m}" for m in micro)],
    }


@pytest.mark.parametrize(("batch", "last"), [(100, 25), (FLOOR * 2, FLOOR), (FLOOR * 2 - 1, None)])
def test_no_micro_batch_is_below_the_floor(batch, last):
    asked, _ = tried(batch)
    assert asked[-1].get("micro_batch") == last
    assert all(a.get("micro_batch", FLOOR) >= FLOOR for a in asked)


def test_a_larger_card_comes_last_where_there_is_one():
    cards = {"a": (24 * GB,), "b": (80 * GB,), "c": (80 * GB, 24 * GB), "d": ()}
    asked, row = tried(32, cards=cards)
    assert asked[-1] == {"gpu": 1.0, "only": ["b"], "micro_batch": 16}
    assert row["memory_steps"][-2:] == ["micro-batch 16", "larger card"]
    _, row = tried(32, cards={"a": (24 * GB,), "b": (24 * GB, 24 * GB)})
    assert row["memory_steps"][-1] == "micro-batch 16"


def test_who_was_alone_begins_with_the_micro_batch():
    _, row = tried(32, alone=True)
    assert row["memory_steps"] == ["alone", "micro-batch 16"]
    _, row = tried(8, alone=True)
    assert row == OOM


def test_on_a_cpu_no_gpu_is_asked_for():
    asked, row = tried(32, on_gpu=False)
    assert asked == [{}, {}, {"micro_batch": 16}]
    assert row["memory_steps"] == ["shared", "alone", "micro-batch 16"]


def test_a_trial_that_came_through_keeps_its_steps_and_others_have_none():
    place = placement()
    place.ran_out(7, trial(128), alone=False)
    complete = {"status": "complete", "reason": "", "scores": {}}
    assert place.row(8, complete) == complete
    assert place.row(7, complete) == {**complete, "memory_steps": ["shared", "alone"]}
    assert place.row(7, complete) == complete  # forgotten with its outcome
    assert place.asks(7, trial(128)) == {}


def test_trials_climb_by_themselves():
    ladder = Ladder()
    for number in (1, 2):
        ladder.climb(number, trial(64), alone=False, cards={})
    ladder.climb(1, trial(64), alone=False, cards={})
    assert ladder.at(1).micro_batch == 32
    assert ladder.at(2).micro_batch is None
    assert ladder.at(3) is None


def test_the_table_has_a_column_only_where_memory_ran_out():
    def record(number, **more):
        result = {"status": "complete", "reason": "", "scores": {}, **more}
        return Record(number, result=result)

    assert "memory_steps" not in table_of([record(0), record(1)])
    table = table_of([record(0), record(1, memory_steps=["shared", "alone"])])
    assert table["memory_steps"].tolist() == ["", "shared, alone"]
