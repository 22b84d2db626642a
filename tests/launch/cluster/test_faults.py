"""What follows from a lost worker, without Ray: a search in which nodes are as sick as we say."""

from __future__ import annotations

from collections import deque

import pytest

from launch.cluster.faults import ANYWHERE, IN_A_ROW, MAX_TRIES, Faults
from launch.cluster.place import DeviceLost, Place, WorkerSick

SICK, HEALTHY = Place("a", "sick", (0,)), Place("b", "healthy", (0,))


def faults(places=2):
    return Faults(lambda: ("a", "b")[:places])


def run(trials, places, broken, *, known=None):
    """Let every place take the next trial in turn; return outcomes by trial, and who ran what."""
    judge = faults(len(places)) if known is None else known
    queue, outcomes, ran = deque(range(trials)), {}, []
    for _ in range(1000):
        for place in [p for p in places if p.node not in judge.closed]:
            if not queue:
                return outcomes, ran, None
            trial = queue.popleft()
            ran.append((trial, place))
            if not broken(trial, place):
                judge.worked(place)
                outcomes[trial] = "complete"
                continue
            verdict = judge.lost(trial, place, "device", "CUDA error: misaligned address")
            if verdict.stop:
                return outcomes, ran, verdict.stop
            if verdict.outcome is not None:
                outcomes[trial] = verdict.outcome["reason"]
            else:
                queue.append(trial)
    raise AssertionError("it never ends")


def test_a_sick_place_is_closed_and_the_budget_is_spent_on_the_healthy_one():
    outcomes, ran, stop = run(8, [SICK, HEALTHY], lambda trial, place: place is SICK)
    assert stop is None
    assert outcomes == dict.fromkeys(range(8), "complete")
    assert sum(place is SICK for _, place in ran) == IN_A_ROW


def test_a_trial_that_breaks_every_device_is_an_error_and_closes_nothing():
    outcomes, ran, stop = run(8, [SICK, HEALTHY], lambda trial, place: trial == 5)
    assert stop is None
    assert outcomes.pop(5) == f"lost its device {MAX_TRIES} times: CUDA error: misaligned address"
    assert outcomes == dict.fromkeys({*range(8)} - {5}, "complete")
    assert len(ran) == 7 + MAX_TRIES


def test_the_only_place_being_sick_stops_the_search_and_is_held_against_no_trial():
    outcomes, ran, stop = run(8, [SICK], lambda trial, place: True)
    assert outcomes == {}
    assert len(ran) == ANYWHERE
    assert stop == "6 times in a row a trial lost its device: CUDA error: misaligned address"


@pytest.mark.parametrize("breakers", [{6, 7}, {5, 6, 7}, {0, 1, 2, 3, 4}])
def test_a_few_trials_that_break_every_device_stop_no_search(breakers):
    """On the only place, and with nothing beside them at the end."""
    outcomes, ran, stop = run(8, [SICK], lambda trial, place: trial in breakers)
    assert stop is None
    assert {trial for trial, outcome in outcomes.items() if outcome == "complete"} == {
        *range(8)
    } - breakers
    assert len(outcomes) == 8


def test_every_place_being_sick_stops_the_search():
    outcomes, ran, stop = run(30, [SICK, HEALTHY], lambda trial, place: True)
    assert outcomes == {}
    assert stop is not None
    assert len(ran) <= 2 * ANYWHERE


def test_workers_lost_at_unknown_places_stop_the_search_but_one_trial_alone_does_not():
    many = faults()
    verdicts = [many.lost(trial, None, "worker", "SIGKILL") for trial in range(ANYWHERE)]
    assert [v.stop is None for v in verdicts] == [True] * (ANYWHERE - 1) + [False]
    one = faults()
    verdicts = [one.lost(4, None, "worker", "SIGKILL") for _ in range(MAX_TRIES)]
    assert [v.stop for v in verdicts] == [None] * MAX_TRIES
    assert verdicts[-1].outcome["reason"] == f"lost its worker {MAX_TRIES} times: SIGKILL"


def test_a_worker_that_cannot_begin_is_no_fault_of_its_trial():
    judge = faults(1)
    verdicts = [judge.never_began(0, SICK, "no module") for _ in range(IN_A_ROW)]
    assert [v.outcome for v in verdicts] == [None] * IN_A_ROW
    assert [v.stop is None for v in verdicts] == [True] * (IN_A_ROW - 1) + [False]
    nowhere = faults(2)
    verdicts = [nowhere.never_began(0, None, "no module") for _ in range(ANYWHERE)]
    assert [v.outcome for v in verdicts] == [None] * ANYWHERE
    assert verdicts[-1].stop is not None


def test_equal_errors_are_the_places_where_others_work_and_else_the_trials():
    judge = faults()
    judge.sick(SICK, "no cuDNN")
    assert not judge.closed
    judge.worked(HEALTHY)
    judge.sick(SICK, "no cuDNN")
    assert judge.closed == {SICK.node}
    trials = faults()
    trials.sick(SICK, "no such layer")
    trials.sick(SICK, "no such layer")
    assert not trials.closed
    assert trials.expected == {"no such layer"}


def test_what_a_worker_raises_travels():
    import pickle

    for error in (DeviceLost(SICK, "gone"), WorkerSick(SICK, "gone", "{}")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), vars(again), str(again)) == (
            type(error),
            vars(error),
            "gone (on GPU 0 of sick)",
        )


def test_a_node_that_dies_costs_its_trials_nothing() -> None:
    """Eight trials at once are no row of losses; one under which nodes die ends, alone first."""
    found = faults()
    verdicts = [found.node_lost(number) for number in range(20)]
    assert not any(v.outcome or v.stop or v.alone for v in verdicts)
    assert verdicts[3].say == "trial 3 lost its node: once more"
    again = [found.node_lost(3) for _ in range(5)]
    assert [v.alone for v in again] == [False, True, True, True, False]
    assert again[-1].outcome["status"] == "error"
    assert again[-1].outcome["reason"] == "lost its node 6 times"
    assert not found.closed


def test_losses_before_a_checkpoint_got_further_are_not_held_against_a_trial():
    """Two of three, then an epoch further, then two more and the third that is one too many."""
    judge = faults()
    kept = [0, 0, 1, 1, 4, 4, 4]
    for epochs in kept[:-1]:
        judge.got_on(0, epochs)
        judge.worked(HEALTHY)
        assert judge.lost(0, HEALTHY, "worker", "killed").outcome is None
    judge.got_on(0, kept[-1])
    assert judge.lost(0, HEALTHY, "worker", "killed").outcome["status"] == "error"
    judge = faults()
    for epochs in range(1, 20):
        judge.got_on(0, epochs)
        verdict = judge.node_lost(0)
        assert (verdict.alone, verdict.outcome) == (False, None)


def test_trials_that_got_on_before_their_losses_stop_no_search():
    judge = faults()
    for number in range(2 * ANYWHERE):
        judge.got_on(number, 1)
        verdict = judge.lost(number, None, "worker", "killed")
        assert (verdict.outcome, verdict.stop) == (None, None)
    for number in range(1, ANYWHERE):
        judge.got_on(number, 1)  # no further
        verdict = judge.lost(number, None, "worker", "killed")
    assert verdict.stop
