"""The watch over running trials, on a set clock and with workers that are only named."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from ray.exceptions import RayActorError
from searchers import searcher_over

from launch.cluster.place import Place
from launch.cluster.watch import Watch
from launch.cluster.worker import AGAIN, OF, OUTCOME, PLACE, SAYS, TrialActor
from launch.config.config import parse_config
from launch.config.sections import Resources
from launch.runs.begin import make_directory, open_search, settle_config
from nas.ledger.lock import RunLock
from nas.ledger.table import load_table
from nas.search.rungs import Rungs
from nas.search.running import Running
from nas.search.running_file import seen
from nas.trial.checkpoint_file import NAME
from nas.trial.files import trial_directory
from nas.trial.state import Epoch


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Told:
    """A progress that only remembers."""

    def __init__(self):
        self.lines, self.ended = [], []

    def say(self, line):
        self.lines.append(line)

    def tick(self):
        pass

    def started(self, proposal, search):
        pass

    def finished(self, number, outcome, search):
        self.ended.append((number, outcome["status"], outcome["reason"]))


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def made(tiny, tmp_path, clock):
    """Return a function that makes a searcher over a run, its watch, what it told and killed."""

    def make(**resources):
        make_directory(tmp_path / "run")
        document = tiny | {"resources": resources, "recipe": tiny["recipe"] | {"epochs": 5}}
        config = settle_config(
            tmp_path / "run", parse_config(document), resume=False, keep_trials=False
        )
        search = open_search(tmp_path / "run", config)
        told, killed = Told(), []
        watch = Watch(
            Running(clock), tmp_path / "run", told, config.resources, 4,
            kill=killed.append, locate=lambda worker: f"node-of-{worker}", clock=clock,
        )  # fmt: skip
        searcher = searcher_over(search, config, tmp_path / "run", told, watch=watch)
        return searcher, watch, told, killed

    return make


def epoch(number, host="node-b", gpus=(0,), **more):
    place = ["id", host, list(gpus)]
    accuracies = {"robust_accuracy": 0.25, "clean_accuracy": 0.5}
    return {"epoch": number, "epochs": 5, OF: 5, PLACE: place, **accuracies, **more}


def pass_time(watch, clock, seconds):
    """Let a second pass at a time, as Tune's loop turns."""
    for _ in range(seconds):
        clock.now += 1
        watch.tick()


def rows(watch):
    return [(r.number, r.place, r.epoch, r.robust_accuracy) for r in watch._book.rows()]


def test_the_searcher_keeps_the_book(made):
    searcher, watch, _, _ = made()
    first, second = (searcher.suggest(name)["number"] for name in ("a", "b"))
    assert rows(watch) == []  # no worker has them yet
    searcher.on_begin("a", "worker-1")
    searcher.on_trial_result("a", epoch(2))
    searcher.on_begin("b", "worker-2")
    assert rows(watch) == [(first, "node-b GPU 0", 2, 0.25), (second, "", 0, None)]
    outcome = {"status": "error", "reason": "it raised", "scores": {}}
    result = {"done": True, OUTCOME: json.dumps(outcome), PLACE: ["id", "node-b", [0]]}
    searcher.on_trial_complete("a", result)
    assert rows(watch) == [(second, "", 0, None)]
    searcher.on_fault("b", RayActorError())
    assert rows(watch) == []
    third = searcher.suggest("c")["number"]
    searcher.on_begin("c", "worker-1")  # which has said where it is
    assert rows(watch) == [(third, "node-b GPU 0", 0, None)]


def test_ray_is_asked_where_a_long_first_epoch_runs(made, clock):
    searcher, watch, _, _ = made()
    number = searcher.suggest("a")["number"]
    searcher.on_begin("a", "worker-1")
    clock.now += 4
    watch.tick()
    assert rows(watch) == [(number, "", 0, None)]
    clock.now += 2
    watch.tick()
    assert rows(watch) == [(number, "node-of-worker-1", 0, None)]
    outcome = {"status": "error", "reason": "it raised", "scores": {}}
    result = {"done": True, OUTCOME: json.dumps(outcome), PLACE: ["", "", []]}
    searcher.on_trial_complete("a", result)
    number = searcher.suggest("b")["number"]
    searcher.on_begin("b", "worker-1")
    assert rows(watch) == [(number, "node-of-worker-1", 0, None)]


def test_a_hanging_trial_is_said_and_given_up_after_its_limit(made, clock, tmp_path):
    searcher, watch, told, killed = made(time_limit_seconds=400)
    number = searcher.suggest("a")["number"]
    searcher.on_begin("a", "worker-1")
    for done in (1, 2):
        clock.now += 5
        searcher.on_trial_result("a", epoch(done))
    while clock.now < 480:
        clock.now += 0.1
        watch.tick()
        if clock.now < 401:
            assert not killed
    assert told.lines == [
        f"trial {number} on node-b GPU 0 has told of no epoch for 51 s, 10 times the median"
    ]
    assert killed == []
    clock.now += 1
    watch.tick()
    watch.tick()
    clock.now += 5
    watch.tick()
    assert killed == ["worker-1"]
    searcher.on_fault("a", RayActorError())
    reason = (
        "the limit of 400 s was passed after epoch 2 of 5; its worker on node-b GPU 0 did not "
        "answer and was ended"
    )
    assert told.ended == [(number, "timeout", reason)]
    table = load_table(tmp_path / "run").set_index("number")
    assert table.loc[number, ["status", "reason"]].tolist() == ["timeout", reason]
    assert searcher.suggest("b")["number"] != number
    assert searcher.failure is None


def test_what_ends_by_itself_while_it_is_given_up_keeps_its_outcome(made, clock):
    searcher, watch, told, killed = made(time_limit_seconds=10)
    number = searcher.suggest("a")["number"]
    searcher.on_begin("a", "worker-1")
    pass_time(watch, clock, 100)
    assert killed == ["worker-1"]
    outcome = {"status": "diverged", "reason": "at last", "scores": {}}
    searcher.on_trial_complete("a", {"done": True, OUTCOME: json.dumps(outcome)})
    assert told.ended == [(number, "diverged", "at last")]


def test_without_a_limit_nothing_is_given_up(made, clock):
    searcher, watch, told, killed = made(hanging_after=None)
    searcher.suggest("a")
    searcher.on_begin("a", "worker-1")
    for seconds in (1e6, 100):
        clock.now += seconds
        pass_time(watch, clock, 20)
    assert (killed, told.lines) == ([], [])


def test_a_driver_that_was_held_up_first_hears_what_waits_for_it(made, clock):
    """Stopped itself (SIGSTOP, a laptop that slept): its workers may have ended meanwhile."""
    searcher, watch, told, killed = made(time_limit_seconds=60)
    for name in ("a", "b"):
        searcher.suggest(name)
        searcher.on_begin(name, f"worker-{name}")
    for name in ("a", "b"):
        searcher.on_trial_result(name, epoch(1))
    watch.tick()
    clock.now += 1000
    watch.tick()
    assert (killed, told.lines) == ([], [])
    outcome = {"status": "error", "reason": "it raised", "scores": {}}
    searcher.on_trial_complete(
        "a", {"done": True, OUTCOME: json.dumps(outcome), PLACE: ["", "", []]}
    )
    pass_time(watch, clock, 9)
    assert killed == []
    pass_time(watch, clock, 2)
    assert killed == ["worker-b"]


class Steps:
    """The epochs of a trial, in a worker that Ray has not started."""

    def __init__(self, epochs, repeats):
        self.worker = object.__new__(TrialActor)
        trial = parse_config({}).plan().template
        trial = replace(trial, recipe=replace(trial.recipe, epochs=epochs), repeats=repeats)
        self.worker._limit, self.worker._trial, self.worker._number = None, trial, 0
        self.worker._place = Place("id", "node-b", (1,))
        numbers = range(1, epochs * repeats + 1)
        self.worker._steps = (Epoch(n, 1.0, 0.5, 0.25, 0.1) for n in numbers)

    def told(self):
        found = []
        while self.worker._steps.gi_frame is not None:
            try:
                found.append(self.worker.step())
            except AttributeError:  # there is no evaluation to save
                break
        return [(r["epoch"], r["epochs"], r[OF], r[PLACE], r["robust_accuracy"]) for r in found]


@pytest.mark.parametrize(("epochs", "repeats"), [(3, 1), (1, 1), (2, 3)])
def test_a_worker_tells_of_every_epoch_but_the_last_and_a_scheduler_of_one_repeat(epochs, repeats):
    told = Steps(epochs, repeats).told()
    of = epochs * repeats
    assert told == [(n, epochs, of, ["id", "node-b", [1]], 0.25) for n in range(1, of)]
    rungs = Rungs((1,), {"robust_accuracy": "max"}, 2)
    for number, epoch_number, *_ in [(t, *row) for t in (0, 1) for row in told]:
        value = {"robust_accuracy": 1.0 - number}
        goes_on = rungs.arrive(number, epoch_number, value, epochs)
        assert goes_on == (number == 0 or epoch_number != 1 or epochs == 1)


def test_a_worker_says_that_training_ended_early_and_then_scores():
    """Of three repeats of five epochs the first ends after two, the last after its third."""
    steps = Steps(5, 3)
    numbers = [1, 2, 6, 7, 8, 9, 10, 11, 12, 13]
    steps.worker._steps = (
        Epoch(n, 1.0, 0.5, 0.25, 0.1, 0.75, 0.5, stopped_early=n in (2, 13)) for n in numbers
    )
    told = steps.told()
    assert [row[0] for row in told] == numbers
    assert [row[2] for row in told] == [15] * 9 + [13]
    assert {row[4] for row in told} == {0.5}  # of the averaged weights, which are better


def test_repeats_tell_of_all_their_epochs(made):
    _, watch, _, _ = made()
    trial = replace(parse_config({}).plan().template, repeats=3)
    watch.begin(0, trial)
    of = 3 * trial.recipe.epochs
    (row,) = watch._book.rows()
    assert (row.epoch, row.epochs) == (0, of)
    watch.told(0, epoch(7, robust_accuracy=math.nan, **{OF: of}))
    (row,) = watch._book.rows()
    assert (row.epoch, row.epochs, row.robust_accuracy) == (7, of, None)
    watch.told(0, epoch(8, **{OF: 8}))
    assert watch._book.rows()[0].last_turn  # it ended early


def test_the_file_is_there_while_the_search_runs(made, tmp_path):
    searcher, watch, _, _ = made()
    number = searcher.suggest("a")["number"]
    searcher.on_begin("a", "worker-1")
    with RunLock(tmp_path / "run"):
        watch.tick()
        assert [row.number for row in seen(tmp_path / "run").rows] == [number]
        watch.close()
        assert seen(tmp_path / "run").rows == ()


@pytest.mark.parametrize("value", [1, 0, -3, math.inf])
def test_a_multiple_is_above_one(value):
    with pytest.raises(ValueError, match="hanging_after"):
        Resources(hanging_after=value)


def test_epochs_of_an_earlier_process_are_no_turns_and_what_a_worker_says_is_said(made, clock):
    searcher, watch, told, _ = made()
    number = searcher.suggest("a")["number"]
    searcher.on_begin("a", "worker-1")
    reported = []
    searcher._placement.reported = lambda number, place: reported.append(number)
    for of_before in (1, 2, 3):
        clock.now += 0.01
        says = [f"goes on after epoch {of_before}"] if of_before == 1 else []
        searcher.on_trial_result("a", epoch(of_before, **{AGAIN: True, SAYS: says}))
    (row,) = watch._book.rows()
    assert row.epoch == 3
    assert watch._book.usual_seconds(row) is None
    assert reported == []
    clock.now += 40
    searcher.on_trial_result("a", epoch(4, **{AGAIN: False, SAYS: []}))
    assert watch._book._epochs[-1] == pytest.approx(40)
    assert reported == [number]
    assert told.lines == [f"trial {number} goes on after epoch 1"]


def test_a_lost_trial_is_judged_by_its_checkpoint_which_goes_with_its_end(made, tmp_path):
    """Lost four times, an epoch further each time, then three times without getting on."""
    searcher, _, _, _ = made()
    kept = (1, 2, 3, 4, 4, 4)
    for epochs in kept:
        number = searcher.suggest("a")["number"]
        searcher.on_begin("a", "worker-1", "n")
        path = trial_directory(tmp_path / "run", number) / f"{NAME}0"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"digest\n" + json.dumps({"epochs": epochs}).encode() + b"\n")
        assert number == 0
        searcher.on_fault("a", RayActorError())
        searcher._outcomes += 1
    assert "lost its worker 3 times" in load_table(tmp_path / "run")["reason"][0]
    assert not path.exists()
