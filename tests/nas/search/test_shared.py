"""Several drivers on one study, and a database that goes away and comes back."""

from __future__ import annotations

import collections
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import driver_process
import pytest
from driver_process import SPACE

from nas.ledger.drivers import DRIVER, Drivers
from nas.ledger.records import records_of
from nas.ledger.results import RUN_ID
from nas.ledger.study import open_study
from nas.ledger.turns import turn_of
from nas.search.shared import SharedSearch
from search_spaces import DepthChannels

ROOT = Path(__file__).parents[3]


class Process:
    """A driver of ``driver_process``, and the lines that it printed."""

    def __init__(self, place: Path, **asked) -> None:
        self.file = place / f"{asked['me']}-{time.monotonic_ns()}.txt"
        path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
        with self.file.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, driver_process.__file__, json.dumps(asked)],
                stdout=out, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": path},
            )  # fmt: skip

    def lines(self, word: str) -> list[list[str]]:
        lines = self.file.read_text().splitlines()
        return [line.split() for line in lines if line.startswith(word)]

    def until(self, word: str, count: int = 1) -> None:
        for _ in range(1200):
            if len(self.lines(word)) >= count:
                return
            assert self.process.poll() is None, self.file.read_text()
            time.sleep(0.05)
        raise AssertionError(self.file.read_text())

    def ends(self, code: int = 0) -> None:
        assert self.process.wait(timeout=120) == code, self.file.read_text()


@pytest.fixture(params=["postgres", "redis_server", "journal", "sqlite"])
def storage(request, tmp_path):
    if request.param in ("journal", "sqlite"):
        return f"{request.param}:///{tmp_path}/shared.file"
    return request.getfixturevalue(request.param).url()


def rows(storage, name):
    records = records_of(open_study("", storage=storage, name=name))
    assert all(r.result is not None for r in records), "a trial is still running"
    found = sorted((r for r in records if r.counts), key=lambda r: r.number)
    assert [r.number for r in found] == list(range(len(found)))
    return found


@pytest.mark.slow
def test_two_drivers_share_a_study_and_one_is_killed(storage, tmp_path):
    asked = {"storage": storage, "name": f"killed-{tmp_path.name}", "trials": 11}
    killed = Process(tmp_path, me="a", hang_after=2, **asked)
    killed.until("began", 3)
    other = Process(tmp_path, me="b", **asked)
    other.until("ended", 2)
    killed.process.kill()
    killed.process.wait()
    other.ends()
    began = [tuple(line[1:]) for p in (killed, other) for line in p.lines("began")]
    left = tuple(killed.lines("began")[2][1:])
    assert collections.Counter(began).pop(left) == 2  # begun by one, ended by the other
    assert len(set(began)) == len(began) - 1
    assert left in [tuple(line[1:]) for line in other.lines("ended")]
    found = rows(storage, asked["name"])
    assert len(found) == 11  # of both
    assert len({tuple(r.params.values()) for r in found}) == 11
    homes = collections.Counter(Path(r.result["run"]).name for r in found)
    assert homes == {"a": 2, "b": 9}


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["postgres", "redis_server"], indirect=True)
def test_three_drivers_count_through_a_grid_together(storage, tmp_path):
    asked = {"storage": storage, "name": "grid", "sampler": "grid", "seconds": 0.2}
    drivers = [Process(tmp_path, me=me, **asked) for me in "abc"]
    for driver in drivers:
        driver.ends()
    found = rows(storage, "grid")
    assert [tuple(r.params.values()) for r in found] == [
        tuple(dict(a.choices).values()) for a in SPACE
    ]
    began = [line[1] for d in drivers for line in d.lines("began")]
    assert sorted(map(int, began)) == list(range(12))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["postgres", "redis_server"])
def test_a_database_that_is_stopped_and_started_is_survived(kind, tmp_path, request):
    server = request.getfixturevalue(kind)
    asked = {"storage": server.url(), "name": "stopped", "trials": 9, "me": "a", "seconds": 0.1}
    search = Process(tmp_path, **asked)
    search.until("ended", 3)
    server.stop()
    try:
        search.until("the ledger")
        time.sleep(0.5)
    finally:
        server.start()
    search.ends()
    assert len(search.lines("the ledger here does not answer")) >= 1
    assert len(search.lines("the ledger here is back")) >= 1
    assert len(rows(server.url(), "stopped")) == 9
    began = [line[1] for line in search.lines("began")]
    assert len(set(began)) == len(began) == 9

    asked |= {"name": "lost", "patience": 0.5}
    search = Process(tmp_path, **asked)
    search.until("ended", 3)
    server.stop()
    try:
        search.ends(1)
    finally:
        server.start()
    (lost,) = search.lines("lost: ")
    assert "--resume" in lost
    Process(tmp_path, **asked).ends()
    found = rows(server.url(), "lost")
    assert len(found) == 9


@pytest.fixture
def join(tmp_path):
    """Return a function that makes a driver in this process, whose beats are called by hand."""
    url, made = f"journal://{tmp_path}/shared.journal", []

    def driver(me, trials=6, space=SPACE):
        plan = driver_process.plan("random", trials, space)
        study = open_study("", directions=plan.directions, storage=url, name="joined")
        study.set_user_attr(RUN_ID, "a")
        drivers = Drivers(study, me, tmp_path / me, beat_seconds=3600, misses=3)
        made.append(SharedSearch(study, plan, drivers, turn_of(study), pause_seconds=0))
        return made[-1], drivers

    yield driver
    for search in made:
        search.close()


def end(search, proposal):
    scores = {"accuracy": 0.5}
    search.finish(proposal.number, {"status": "complete", "reason": "", "scores": scores})


def test_only_a_driver_that_is_seen_not_to_count_is_dead(join):
    a, its_beats = join("a")
    b, beats = join("b")
    taken = a.propose()
    others = [b.propose() for _ in range(5)]
    assert taken.number not in [p.number for p in others]
    for _ in range(4):
        assert b.propose() is None
        assert b.waits()
        its_beats.beat()
        beats.beat()
    for _ in range(3):
        assert b.propose() is None
        beats.beat()
    adopted = b.propose()
    assert (adopted.number, adopted.trial.key) == (taken.number, taken.trial.key)
    assert b.study.get_trials()[taken.number].user_attrs[DRIVER] == "b"
    c, _ = join("c")
    assert c.propose() is None  # adopted once
    end(b, adopted)
    kept = b.study.get_trials()[taken.number]
    end(a, taken)  # it was not dead after all
    assert b.study.get_trials()[taken.number] == kept
    assert a.results()[-1]["run"].endswith("/b")


def test_what_a_driver_left_in_order_is_taken_over_at_once(join):
    a, _ = join("a")
    taken = a.propose()
    a.close()
    b, _ = join("b")
    assert b.propose().number == taken.number
    again, _ = join("a")  # it goes on: b has looked at it as it left, and must look anew
    mine = again.propose()
    assert mine.number not in (taken.number, b.propose().number)


def test_a_duplicate_of_what_another_runs_waits_for_it(join):
    two = DepthChannels(depth=(1, 2), channels=(8,))
    drivers = [join(me, None, two)[0] for me in "abc"]
    running = [search.propose() for search in drivers]
    assert running[2] is None  # both cells are being trained
    assert running[0].trial.key != running[1].trial.key
    c = drivers[2]
    assert c.waits()
    for search, proposal in zip(drivers, running[:2], strict=False):
        end(search, proposal)
    assert c.propose() is None
    assert not c.waits()
    records = records_of(c.study)
    assert [r.number for r in records if r.counts] == [p.number for p in running[:2]] == [0, 1]
    assert len(records) > 2
    for record in records:
        assert record.result["scores"] == {"accuracy": 0.5}
        repeated = record.result["repeat_of"]
        assert repeated is None or running[repeated].trial == c.plan.trial(record.params)


def test_numbers_are_unique_over_all_drivers(join):
    drivers = [join(me, 9)[0] for me in "ab"]
    numbers = []
    while len(numbers) < 9:
        search = drivers[len(numbers) % 2]
        proposal = search.propose()
        numbers.append(proposal.number)
        if len(numbers) % 3:
            end(search, proposal)
    assert numbers == list(range(9))
    seen = [{r["number"] for r in d.results()} for d in drivers if d.propose() is None]
    assert seen == [{0, 1, 3, 4, 6, 7}] * 2
    assert len(drivers[0].study.get_trials()) > 9  # repeats in between


@pytest.mark.parametrize("asked", [False, True])
def test_a_trial_whose_driver_died_before_it_had_a_number_gets_the_next(join, monkeypatch, asked):
    """Over a database the trial is there before its answers and its number are."""
    a, _ = join("a")
    b, _ = join("b")
    first = a.propose()

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(b._places, "give", killed) if asked else patch.setattr(
            "optuna.Trial.suggest_categorical", killed
        )
        with pytest.raises(KeyboardInterrupt):
            b.propose()
    b.close()
    lost = a.study.get_trials()[-1]
    assert (lost.state.name, bool(lost.params)) == ("RUNNING", asked)
    assert [r.number for r in records_of(a.study)] == [0]
    others = [a.propose() for _ in range(5)]
    assert [first.number, *(p.number for p in others)] == list(range(6))
    if asked:
        assert others[0].trial == a.plan.trial(lost.params)
    for proposal in (first, *others):
        end(a, proposal)
    assert [r["number"] for r in a.results()] == list(range(6))
