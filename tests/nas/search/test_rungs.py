"""Rungs against brute force, what they do with ties, NaN and first arrivals, and their refill."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

import launch.cluster.session  # noqa: F401  sets what ray reads when it is imported
from launch.cluster.scheduler import RungScheduler, open_rungs, stopped
from launch.cluster.worker import OF, SPENT
from launch.config.config import parse_config
from launch.config.sections import Scheduler
from launch.runs.begin import open_search
from nas.errors import InputError
from nas.ledger.fronts import crowding, front_ranks, pareto_front
from nas.ledger.results import reached_rungs
from nas.ledger.table import load_table
from nas.search.books import failure
from nas.search.rungs import Rungs, rung_epochs

ONE = {"robust": "max"}
TWO = {"robust": "max", "clean": "max"}
THREE = {"robust": "max", "clean": "max", "loss": "min"}


def brute_force(there, mine, directions, factor):
    """Say who goes on, front by front and with loops: independent of nas.search.rungs."""
    room = max(1, int(len(there) // factor))
    sign = {name: 1 if way == "max" else -1 for name, way in directions.items()}
    rows = [[sign[n] * v[n] for n in directions] for v in there]
    row = [sign[n] * mine[n] for n in directions]
    if any(math.isnan(x) for x in row):
        return False
    rows = [r for r in rows if not any(math.isnan(x) for x in r)]
    better = 0
    while True:
        on_front = pareto_front(rows, ["max"] * len(directions))
        front = [r for r, on in zip(rows, on_front, strict=True) if on]
        if row in front:
            distances = brute_crowding(sorted({tuple(r) for r in front}))
            mine = distances[tuple(row)]
            better += sum(distances[tuple(r)] > mine for r in front)
            return better < room
        better += len(front)
        rows = [r for r, on in zip(rows, on_front, strict=True) if not on]


def brute_crowding(front):
    total = dict.fromkeys(front, 0.0)
    for axis in range(len(front[0])):
        order = sorted(front, key=lambda r: r[axis])
        low, high = order[0][axis], order[-1][axis]
        if low == high:
            continue
        for before, here, after in zip(order, order[1:], order[2:], strict=False):
            total[here] += (after[axis] - before[axis]) / (high - low)
        for here in front:
            if here[axis] in (low, high):
                total[here] = math.inf
    return {r: round(t, 12) for r, t in total.items()}


def draw(rng, directions, levels):
    values = {name: float(rng.integers(levels)) for name in directions}
    if rng.random() < 0.05:
        values[next(iter(values))] = math.nan
    return values


@pytest.mark.parametrize("factor", [1.5, 2, 3, 4])
@pytest.mark.parametrize("directions", [ONE, TWO, THREE], ids=len)
@pytest.mark.parametrize("levels", [4, 1000])
def test_who_goes_on_against_brute_force(directions, factor, levels):
    rng = np.random.default_rng([len(directions), levels])
    rungs, there, verdicts = Rungs((2,), directions, factor), [], []
    for number in range(80):
        values = draw(rng, directions, levels)
        there.append(values)
        verdicts.append(rungs.arrive(number, 2, values, 9))
        assert verdicts[-1] == brute_force(there, values, directions, factor), number
    assert 0.1 < np.mean(verdicts) < 0.95


def test_ranks_are_fronts_peeled_in_turn():
    values = np.random.default_rng(0).integers(0, 9, (80, 2)).astype(float)
    ranks, left = front_ranks(values), np.arange(80)
    for rank in range(ranks.max() + 1):
        on_front = pareto_front(values[left], ["max", "max"])
        assert set(left[on_front]) == set(np.flatnonzero(ranks == rank))
        left = left[~on_front]
    assert len(left) == 0
    assert ranks.max() > 3


def test_crowding_by_hand():
    front = np.array([[0.0, 10.0], [1.0, 8.0], [4.0, 5.0], [10.0, 0.0]])
    assert crowding(front).tolist() == [np.inf, 0.9, 1.7, np.inf]  # 0.4 + 0.5, 0.9 + 0.8
    assert crowding(np.array([[3.0, 3.0]])).tolist() == [0.0]


@pytest.mark.parametrize(
    ("settings", "epochs"),
    [
        ((1, 3, 30), (1, 3, 9, 27)),
        ((2, 2, 16), (2, 4, 8)),
        ((2, 2, 17), (2, 4, 8, 16)),
        ((4, 4, 64), (4, 16)),
        ((1, 1.5, 9), (1, 2, 3, 4, 6, 8)),  # 1, 1.5, 2.25, 3.375, 5.06, 7.59
        ((100, 1.1, 140), (100, 110, 121, 134)),  # 110.00000000000001 stands at 110
        ((1, 1 + 1e-12, 5), (1, 2, 3, 4)),
        ((1, math.inf, 5), (1,)),
        ((5, 3, 5), ()),
        ((1, 3, 1), ()),
    ],
)
def test_rungs_are_powers_below_the_maximum(settings, epochs):
    assert rung_epochs(*settings) == epochs


def test_a_non_dominated_trial_goes_on_that_one_value_would_have_stopped():
    robust, clean = [0.5, 0.4, 0.3, 0.2, 0.45, 0.1], [0.5, 0.6, 0.4, 0.3, 0.4, 0.9]
    one, two = Rungs((1,), ONE, 3), Rungs((1,), TWO, 3)
    for number, (r, c) in enumerate(zip(robust, clean, strict=True)):
        values = {"robust": r, "clean": c}
        verdicts = one.arrive(number, 1, values, 9), two.arrive(number, 1, values, 9)
    assert verdicts == (False, True)  # the last has the best clean accuracy and the worst robust
    assert not two.arrive(6, 1, {"robust": 0.44, "clean": 0.39}, 9)  # dominated: the other way


def test_the_first_goes_on_and_then_whoever_is_best():
    rungs = Rungs((1,), ONE, 3)
    arrived = [0.2, 0.1, 0.3, 0.25, 0.31, 0.305]
    verdicts = [rungs.arrive(n, 1, {"robust": v}, 9) for n, v in enumerate(arrived)]
    assert verdicts == [True, False, True, False, True, True]  # of six there is room for two


def test_equals_go_on_together():
    rungs = Rungs((1,), TWO, 2)
    assert all(rungs.arrive(n, 1, {"robust": 0.0, "clean": 0.1}, 9) for n in range(20))
    assert rungs.arrive(20, 1, {"robust": 0.1, "clean": 0.1}, 9)
    assert rungs.arrive(21, 1, {"robust": 0.0, "clean": 0.1}, 9)  # 11 go on, one is better
    many = Rungs((1,), ONE, 4)
    verdicts = [many.arrive(n, 1, {"robust": v}, 9) for n, v in enumerate([3, 2, 2, 2, 1, 3])]
    assert verdicts == [True, False, False, False, False, True]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("way", ["max", "min"])
def test_what_is_not_finite_never_goes_on_and_counts_among_the_others(bad, way):
    rungs = Rungs((1,), {"robust": way}, 2)
    good = 0.1 if way == "max" else -0.1
    assert not rungs.arrive(0, 1, {"robust": bad}, 9)
    assert rungs.arrive(1, 1, {"robust": good}, 9)
    assert not rungs.arrive(2, 1, {"robust": bad}, 9)
    assert rungs.arrive(3, 1, {"robust": 0.0}, 9)  # the second of four
    two = Rungs((1,), TWO, 2)
    assert not two.arrive(0, 1, {"robust": 1.0, "clean": bad}, 9)


def test_the_last_epoch_of_a_trial_is_no_rung_of_it():
    rungs = Rungs(rung_epochs(1, 3, 27), ONE, 3)
    assert rungs.arrive(0, 3, {"robust": 0.9}, 27)
    for number, last in ((1, 3), (2, 2)):
        assert rungs.arrive(number, 3, {"robust": 0.0}, last)
        assert rungs.reached(number) == {}
    assert rungs.arrive(3, 2, {"robust": 0.0}, 27)  # between two rungs
    assert not rungs.arrive(4, 3, {"robust": 0.0}, 4)


def test_the_order_in_which_the_others_came_plays_no_part():
    rng = np.random.default_rng(1)
    others = [draw(rng, THREE, 5) for _ in range(30)]
    for values in others[:10]:
        verdicts = set()
        for _ in range(10):
            rungs = Rungs((1,), THREE, 3)
            for number in rng.permutation(30):
                rungs.arrive(int(number), 1, others[number], 9)
            verdicts.add(rungs.arrive(99, 1, values, 9))
        assert len(verdicts) == 1


@pytest.mark.parametrize("directions", [ONE, TWO], ids=len)
def test_refilled_rungs_decide_as_those_that_were_never_lost(directions):
    rng = np.random.default_rng(2)
    whole, results, verdicts = Rungs((1, 3), directions, 2), [], []
    for number in range(60):
        broken = Rungs((1, 3), directions, 2)
        broken.refill(json.loads(json.dumps(results)))
        for epoch in (1, 2, 3):
            values = {**draw(rng, directions, 6), "noise": 1.0}
            goes_on = whole.arrive(number, epoch, values, 9)
            assert broken.arrive(number, epoch, values, 9) == goes_on
            verdicts.append(goes_on)
            if not goes_on:
                break
        results.append({"number": number, "rungs": whole.reached(number)})
        assert json.dumps(broken.reached(number)) == json.dumps(whole.reached(number))
    assert 10 < sum(verdicts) < len(verdicts) - 10
    assert {"1", "3"} == {epoch for r in results for epoch in r["rungs"]}
    assert list(reached_rungs({"rungs": {"27": {}, "3": {}}})) == [3, 27]
    assert reached_rungs({"status": "complete"}) == {}


def test_a_trial_that_begins_again_is_forgotten():
    rungs = Rungs((1, 3), ONE, 2)
    rungs.arrive(0, 1, {"robust": 0.9}, 9)
    rungs.arrive(0, 3, {"robust": 0.9}, 9)
    assert not rungs.arrive(1, 1, {"robust": 0.5}, 9)
    rungs.forget(0)
    assert rungs.reached(0) == {}
    assert rungs.arrive(1, 1, {"robust": 0.5}, 9)


def test_bad_input_is_one_line():
    for directions in ({}, {"robust": "up"}):
        with pytest.raises(ValueError, match="expected directions max or min, got"):
            Rungs((1,), directions, 3)
    for settings in ((0, 3, 9), (1, 1.0, 9), (1, math.nan, 9)):
        with pytest.raises(ValueError, match="expected grace_period >= 1 and reduction_factor > 1"):
            rung_epochs(*settings)
    with pytest.raises(ValueError, match="expected reduction_factor > 1, got 0.5"):
        Rungs((1,), ONE, 0.5)
    with pytest.raises(InputError, match=r"trial 4: expected \['robust'\] at rung 1, got"):
        Rungs((1,), ONE, 3).refill([{"number": 4, "rungs": {"1": {"clean": 0.5}}}])


# ------------------------------------------------------------------------------------ Tune's face


def tune_trial(number):
    return SimpleNamespace(config={"number": number, "overrides": {}})


def epoch(number, robust, clean=0.5, epochs=4):
    scores = {"robust_accuracy": robust, "clean_accuracy": clean, "other": 1}
    return {"epoch": number, "epochs": epochs, **scores}


def test_the_scheduler_stops_trials_by_number_and_by_their_own_last_epoch():
    rungs = Rungs(rung_epochs(1, 2, 4), {"robust_accuracy": "max"}, 2)
    scheduler = RungScheduler(rungs)
    told = scheduler.on_trial_result
    assert told(None, tune_trial(7), epoch(1, 0.9)) == "CONTINUE"
    assert told(None, tune_trial(8), epoch(1, 0.1, 0.6)) == "STOP"
    assert told(None, tune_trial(9), epoch(1, 0.1, epochs=1)) == "CONTINUE"
    assert told(None, tune_trial(10), epoch(1, 0.1, epochs=2)) == "STOP"
    assert told(None, tune_trial(7), epoch(2, 0.8)) == "CONTINUE"
    assert rungs.reached(8) == {"1": {"robust_accuracy": 0.1, "clean_accuracy": 0.6}}
    assert list(rungs.reached(7)) == ["1", "2"]
    scheduler.on_trial_error(None, tune_trial(7))
    assert rungs.reached(7) == {}


def test_a_trial_whose_training_ended_early_is_noted_at_a_rung_and_goes_on_to_its_scores():
    rungs = Rungs(rung_epochs(1, 2, 4), {"robust_accuracy": "max"}, 2)
    told = RungScheduler(rungs).on_trial_result
    assert told(None, tune_trial(7), epoch(1, 0.9)) == "CONTINUE"
    assert told(None, tune_trial(8), {**epoch(1, 0.1), OF: 4}) == "STOP"
    assert told(None, tune_trial(9), {**epoch(1, 0.1), OF: 1}) == "CONTINUE"
    assert rungs.reached(9) == {"1": {"robust_accuracy": 0.1, "clean_accuracy": 0.5}}


def test_a_trial_that_goes_on_counts_once_at_a_rung_that_it_tells_of_again():
    rungs = Rungs(rung_epochs(1, 3, 4), {"robust_accuracy": "max"}, 3)
    scheduler = RungScheduler(rungs)
    for number, robust in ((0, 0.9), (1, 0.8), (2, 0.1)):
        scheduler.on_trial_result(None, tune_trial(number), epoch(1, robust))
    for _ in range(2):  # its worker dies, and the next one tells of the epoch again
        scheduler.on_trial_error(None, tune_trial(0))
        assert scheduler.on_trial_result(None, tune_trial(0), epoch(1, 0.9)) == "CONTINUE"
    assert len(rungs._at[1]) == 3
    assert scheduler.on_trial_result(None, tune_trial(3), epoch(1, 0.85)) == "STOP"


def test_the_seconds_of_a_stopped_trial_are_those_of_all_its_processes():
    result = {**epoch(1, 0.5), "time_total_s": 3.0}
    assert stopped(result, Scheduler())["seconds"] == 3.0
    assert stopped({**result, SPENT: 40.0}, Scheduler())["seconds"] == 43.0


def test_a_search_keeps_its_rungs_from_one_driver_to_the_next(tiny, tmp_path):
    tiny["recipe"] |= {"epochs": 3}
    tiny |= {
        "scheduler": {"metric": ["robust_accuracy", "clean_accuracy"], "reduction_factor": 2},
        "vary": {"recipe": [{"epochs": 9}, {"learning_rate": 0.2}]},
    }
    config = parse_config(tiny)
    search = open_search(tmp_path, config)
    rungs = open_rungs(config, search)
    assert rungs.epochs == (1, 2, 4, 8)
    assert rungs.directions == {"robust_accuracy": "max", "clean_accuracy": "max"}
    first, second, third = (search.propose().number for _ in range(3))
    for number, robust in ((first, 0.4), (second, 0.2), (third, 0.3)):
        rungs.arrive(number, 1, {"robust_accuracy": robust, "clean_accuracy": 0.5}, 9)
    stopped = {**failure("stopped", "why"), "stopped_by": ["robust_accuracy"], "epochs": 1}
    complete = {**failure("complete", ""), "scores": {"pgd_accuracy": 0.5}, "epochs": 9}
    search.finish(first, {**complete, "rungs": rungs.reached(first)})
    search.finish(second, {**stopped, "rungs": rungs.reached(second)})
    again = open_rungs(config, open_search(tmp_path, config))
    assert [again.reached(n) for n in (first, second)] == [
        {"1": {"robust_accuracy": r, "clean_accuracy": 0.5}} for r in (0.4, 0.2)
    ]
    assert again.reached(third) == {}  # it runs again from its first epoch
    table = load_table(tmp_path)
    assert table["rung"].fillna(0).tolist() == [0, 1, 0]
    assert open_rungs(parse_config({**tiny, "scheduler": None}), search) is None
