"""``psinas trials``, of a search that runs, that ended, or whose driver was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import optuna
import pytest
from helpers import one_line, search_here

from launch.config.config import parse_config
from launch.runs.begin import make_directory, open_search, settle_config
from launch.runs.left import left_in
from launch.runs.run import Run
from launch.runs.watching import look, watch
from launch.show.watched import plain, screen, summary
from nas.ledger.living import Holder
from nas.ledger.lock import OWNER, RunLock
from nas.ledger.records import Record, records_of
from nas.search.books import failure
from nas.search.running import Running
from nas.search.running_file import FILE, RunningFile, Seen

DOCUMENT = {
    "name": "watched",
    "data": {"name": "digits", "limit": {"train": 64, "validation": 40}},
    "space": {"name": "faulty_spaces:Faulty", "kinds": ["good", "good-2", "good-3"]},
    "recipe": {"epochs": 0, "batch_size": 64, "adversary": "none"},
    "metrics": ["clean"],
    "objectives": {"clean_accuracy": "max"},
    "sampler": {"name": "grid"},
    "trials": None,
}
LEFT = "left by a driver that ended: --resume goes on"


@pytest.fixture
def going(tmp_path):
    """A search with one trial done, and two that the ledger calls running."""
    out = search_here(tmp_path / "run", DOCUMENT | {"trials": 1})
    config = settle_config(out, parse_config(DOCUMENT), resume=True, keep_trials=False)
    going = open_search(out, config)
    assert [going.propose().number, going.propose().number] == [1, 2]
    return going


@pytest.fixture
def run(going, tmp_path):
    return tmp_path / "run"


@pytest.fixture
def book(run):
    book = Running()
    book.begin(1, 20)
    book.at(1, "node-b", (0,))
    book.told(1, 3, 0.412)
    return book


def statuses(psinas, run):
    code, out, _ = psinas("trials", run, "--format", "json")
    assert code == 0
    return [(row["status"], row["reason"]) for row in json.loads(out)]


def killed(run):
    code = "import os, sys; from pathlib import Path; from nas.ledger.lock import RunLock\n"
    code += "with RunLock(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.run([sys.executable, "-c", code, str(run)], env=environment, check=False)
    assert process.returncode == -signal.SIGKILL


def test_trials_run_only_under_a_driver_that_lives(run, psinas):
    assert statuses(psinas, run) == [("complete", ""), ("left", LEFT), ("left", LEFT)]
    with RunLock(run):
        assert statuses(psinas, run) == [("complete", ""), ("running", ""), ("running", "")]
    killed(run)
    assert statuses(psinas, run) == [("complete", ""), ("left", LEFT), ("left", LEFT)]
    (run / OWNER).write_text("pid 12 on elsewhere")
    assert statuses(psinas, run) == [("complete", ""), ("running", ""), ("running", "")]
    _, out, _ = psinas("trials", run)
    assert "the driver (pid 12 on elsewhere) has not been heard of: what is called running" in out


def shared(record, found, *, said, me="founder"):
    run = SimpleNamespace(
        path=None, records=[record], id="founder", drivers=said,
        document={"storage": "postgresql://db", **({} if me == "founder" else {"driver": me})},
    )  # fmt: skip
    return left_in(run, found) == {0}


@pytest.mark.parametrize("own", [True, False])
def test_of_drivers_that_share_a_database_only_what_is_known_is_said(own):
    """A trial of the driver of this run directory, or of another's; ours has ended, or lives."""
    there = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                           capture_output=True, check=True)  # fmt: skip
    gone, me = int(there.stdout), Holder.me()
    record = Record(0, driver=None if own else "other")
    for state in ("none", "living", "silent", "dead"):
        found = Seen(state)
        for said, known in (
            ({}, False),
            ({"left": True}, True),
            ({"left": False, "host": "elsewhere", "pid": gone}, False),
            ({"left": False, "host": me.host, "pid": me.pid}, False),
            ({"left": False, "host": me.host, "pid": gone}, True),
        ):
            expected = state in ("none", "dead") if own else known
            assert shared(record, found, said={"other": said} if said else {}) == expected
    joined = Record(0, driver="joined")
    assert shared(joined, Seen("dead"), said={}, me="joined")
    assert not shared(joined, Seen("living"), said={}, me="joined")


def test_a_record_says_whose_it_is():
    study = optuna.create_study()
    for attributes in ({"driver": "a"}, {}):
        study.add_trial(
            optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING, user_attrs=attributes)
        )
    assert [record.driver for record in records_of(study)] == ["a", None]


def test_a_watch_follows_a_search_to_its_end(run, going, book):
    """Each sleep is what happens between two looks."""
    lock = RunLock(run)
    lock.__enter__()
    file = RunningFile(run, book, 3, clock=iter(range(0, 1000, 50)).__next__)
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 1:
            file.tick()
        elif len(slept) == 2:
            book.told(1, 4, 0.5)
            file.tick()
            going.finish(2, failure("error", "it raised"))
        else:
            file.close()
            lock.__exit__(None, None, None)

    looks = list(watch(run, 7.0, sleep=sleep))
    assert slept == [7.0] * 3
    assert [found.seen.state for found in looks] == ["living"] * 3 + ["none"]
    assert [len(found.seen.rows) for found in looks] == [0, 1, 1, 0]
    assert [sorted(found.running) for found in looks] == [[1, 2], [1, 2], [1], []]
    assert [len(found.results) for found in looks] == [1, 1, 2, 2]
    assert sorted(looks[-1].left) == [1]
    head, node, row, more = screen(looks[1], 20)
    best = looks[1].results[0]["scores"]["clean_accuracy"]
    assert head == (
        f"{run}: 1/3 done, 2 running, 0 failed | best clean_accuracy {best:.4g} (trial 0)"
    )
    assert node == "node-b: 1 running"
    assert row.startswith("  trial 1  GPU 0  epoch 3/20  robust accuracy .412")
    assert more == "1 more wait for a worker, or run under other drivers"
    assert "epoch 4/20  robust accuracy .500" in "\n".join(screen(looks[2], 20))
    assert "1 running: trial 1 node-b GPU 0 epoch 4/20" in plain(looks[2])
    assert f"psinas search --resume --out {run}" in plain(looks[3])


def test_a_search_that_has_only_just_begun_is_watched(tmp_path):
    make_directory(tmp_path / "run")
    settle_config(tmp_path / "run", parse_config(DOCUMENT), resume=False, keep_trials=False)
    with RunLock(tmp_path / "run"):
        found = look(Run(tmp_path / "run"))
    assert summary(found) == f"{tmp_path / 'run'}: 0 done, 0 running, 0 failed"
    assert not found.over


def test_a_screen_holds_no_more_lines_than_it_has(run, book):
    for number in range(10, 50):
        book.begin(number, 20)
        book.at(number, f"node-{number % 4}")
    with RunLock(run):
        RunningFile(run, book, 99).tick()
        found = look(Run(run))
        for most in (5, 10, 60):
            lines = screen(found, most)
            assert len(lines) <= most
            named = sum(line.strip().startswith("trial ") for line in lines)
            hidden = [line for line in lines if line.startswith("and ")]
            assert hidden == ([f"and {41 - named} more"] if named < 41 else [])


def test_the_command_ends_with_the_search_with_its_driver_or_at_ctrl_c(
    run, book, psinas, monkeypatch
):
    code, out, _ = psinas("trials", run, "--watch")
    assert (code, out.count("\n")) == (0, 1)
    assert "1 done, 0 running, 0 failed, 2 left" in out
    killed(run)
    assert psinas("trials", run, "--watch", "--every", 3)[0] == 1

    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupted)
    with RunLock(run):
        RunningFile(run, book, 3).tick()
        before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
        code, out, _ = psinas("trials", run, "--watch")
        after = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    assert code == 130
    assert "1/3 done, 2 running" in out
    assert before == after  # who watches writes nothing
    assert run / FILE in after


def test_a_log_is_told_news_only(run, book, psinas, monkeypatch):
    sleeps = iter(range(100))
    monkeypatch.setattr("time.sleep", lambda seconds: book_goes_on(next(sleeps)))
    file = RunningFile(run, book, 3, clock=iter(range(0, 1000, 50)).__next__)
    lock = RunLock(run)
    lock.__enter__()

    def book_goes_on(count):
        if count == 5:
            book.told(1, 4, 0.5)
        if count == 9:
            lock.__exit__(None, None, None)
        file.tick()

    file.tick()
    code, out, _ = psinas("trials", run, "--watch")
    assert code == 0
    assert ["epoch 3/20" in out, "epoch 4/20" in out, out.count("\n")] == [True, True, 3]


def test_what_does_not_go_with_a_watch_is_refused(run, psinas):
    one_line(psinas("trials", run, "--watch", "--top", 3), "--watch: expected --every", "--top")
    one_line(psinas("trials", run, "--every", 3), "--every without --watch")
    assert psinas("trials", run, "--watch", "--every", 0.1)[0] == 2
    one_line(psinas("trials", run.parent, "--watch"), "expected a run directory")


def test_a_search_that_is_stopped_calls_nothing_running(psinas, monkeypatch, tmp_path):
    def stopped(search, config, run, progress, **more):
        search.propose()
        return False

    monkeypatch.setattr("launch.runs.searching.run_search", stopped)
    (tmp_path / "it.yaml").write_text(json.dumps(DOCUMENT))
    code, out, _ = psinas("search", tmp_path / "it.yaml", "--out", tmp_path / "run")
    assert code == 130
    (row,) = [line for line in out.splitlines() if line.split()[:2] == ["0", "left"]]
    assert LEFT in row
