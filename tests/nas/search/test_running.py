"""The book of running trials, when one hangs, and the file that others read: on a set clock."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time

import pytest

from nas.ledger.living import Holder, holder, lives
from nas.ledger.lock import OWNER, RunLock
from nas.search.hanging import Hangs, duration
from nas.search.running import Running
from nas.search.running_file import FILE, RunningFile, seen


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def book(clock):
    return Running(clock)


def run_epochs(book, clock, number, *seconds, epochs=20):
    """Let a trial begin and tell of an epoch after each of these times."""
    book.begin(number, epochs)
    for epoch, taken in enumerate(seconds, start=1):
        clock.now += taken
        book.told(number, epoch, 0.1 * epoch)


def test_a_row_says_where_a_trial_is_and_since_when(book, clock):
    run_epochs(book, clock, 7, 5, 7)
    book.begin(3, 4)
    book.at(7, "node-b", (0,))
    clock.now += 2
    third, seventh = book.rows()
    assert (third.number, third.epoch, third.robust_accuracy, third.place) == (3, 0, None, "")
    assert (seventh.number, seventh.epoch, seventh.epochs, seventh.place) == (
        7, 2, 20, "node-b GPU 0"
    )  # fmt: skip
    assert (seventh.seconds, seventh.silent_seconds, seventh.robust_accuracy) == (14, 2, 0.2)
    assert len(book) == 2


def test_a_trial_that_begins_again_begins_anew_and_one_that_ended_is_heard_no_more(book, clock):
    run_epochs(book, clock, 7, 5, 7)
    book.begin(7, 20)
    (row,) = book.rows()
    assert (row.epoch, row.seconds, row.host) == (0, 0, "")
    book.end(7)
    changes = book.changes
    book.told(7, 3, 0.5)
    book.at(7, "node-a")
    book.end(7)
    assert (book.rows(), book.changes) == ((), changes)


def test_usual_times_are_medians_of_its_own_epochs_or_of_all(book, clock):
    book.begin(0, 20)
    assert book.usual_seconds(book.rows()[0]) is None
    run_epochs(book, clock, 1, 10, 20, 60)
    row = {r.number: r for r in book.rows()}
    assert book.usual_seconds(row[0]) == statistics.median([10, 20, 60])
    run_epochs(book, clock, 2, 1, 3)
    row = {r.number: r for r in book.rows()}
    assert book.usual_seconds(row[2]) == 2.0
    assert book.usual_seconds(row[0]) == statistics.median([10, 20, 60, 1, 3])


def test_the_last_turn_scores_too_and_is_compared_with_last_turns(book, clock):
    for number, ends in ((0, 400), (1, 600), (2, 500)):
        run_epochs(book, clock, number, 1, 1, epochs=3)
        clock.now += ends
        book.end(number, whole=number != 1)
    run_epochs(book, clock, 3, 1, 1, epochs=3)
    (row,) = book.rows()
    assert row.last_turn
    assert book.usual_seconds(row) == 450
    clock.now += 100
    assert Hangs(10, None).silent(book.rows(), book.usual_seconds) == []


def test_a_trial_that_ends_early_scores_in_its_last_turn(book, clock):
    run_epochs(book, clock, 0, 1, 1, epochs=3)
    clock.now += 400
    book.end(0)
    book.begin(1, 20)
    clock.now += 1
    book.told(1, 1, 0.5, of=20)
    assert not book.rows()[0].last_turn
    book.told(1, 2, 0.5, of=2)
    (row,) = book.rows()
    assert (row.epoch, row.epochs, row.last_turn) == (2, 2, True)
    clock.now += 300  # longer than any epoch, but not than others scored
    assert Hangs(10, None).silent(book.rows(), book.usual_seconds) == []
    book.end(1)
    assert book.usual_seconds(row) is None
    run_epochs(book, clock, 2, 1, epochs=2)
    assert book.usual_seconds(book.rows()[0]) == statistics.median([400, 300])


def test_a_trial_that_hangs_is_said_once_for_each_silence(book, clock):
    hangs = Hangs(10, None)
    run_epochs(book, clock, 7, 20, 30)
    book.at(7, "node-b", (0,))
    said = []
    while clock.now < 2000:
        clock.now += 1
        said += [(clock.now, str(s)) for s in hangs.silent(book.rows(), book.usual_seconds)]
    assert said == [
        (1301, "trial 7 on node-b GPU 0 has told of no epoch for 4m11, 10 times the median")
    ]
    book.told(7, 3, 0.5)  # after 950 s: the median of its own is 30 now
    clock.now += 300
    assert hangs.silent(book.rows(), book.usual_seconds) == []
    clock.now += 1
    assert len(hangs.silent(book.rows(), book.usual_seconds)) == 1
    assert hangs.silent(book.rows(), book.usual_seconds) == []
    hangs.forget(7)
    assert len(hangs.silent(book.rows(), book.usual_seconds)) == 1


@pytest.mark.parametrize(("after", "waited", "hangs"), [(10, 29, 0), (10, 31, 1), (None, 1e9, 0)])
def test_short_epochs_do_not_cry_wolf(after, waited, hangs, book, clock):
    run_epochs(book, clock, 7, 0.1, 0.1)
    clock.now += waited
    assert len(Hangs(after, None).silent(book.rows(), book.usual_seconds)) == hangs


def test_a_trial_is_given_up_once_after_its_limit_and_what_its_worker_had_of_grace(book, clock):
    hangs = Hangs(None, 100.0)
    book.begin(7, 20)
    book.at(7, "node-b")
    clock.now += 100 + 10 + 10
    assert hangs.overdue(book.rows()) == []
    clock.now += 1
    ((row, reason),) = hangs.overdue(book.rows())
    assert row.number == 7
    assert reason == (
        "the limit of 100 s was passed after epoch 0 of 20; its worker on node-b did not answer "
        "and was ended"
    )
    assert hangs.overdue(book.rows()) == []
    hangs.forget(7)
    book.begin(7, 20)
    clock.now += 121
    assert len(hangs.overdue(book.rows())) == 1
    clock.now += 1e9
    assert Hangs(None, None).overdue(book.rows()) == []


def test_short_limits_have_seconds_of_grace(book, clock):
    book.begin(0, 1)
    clock.now += 2 + 3 + 5
    assert Hangs(None, 2.0).overdue(book.rows()) == []
    clock.now += 0.5
    assert len(Hangs(None, 2.0).overdue(book.rows())) == 1


def test_times_are_told_for_people():
    told = [duration(seconds) for seconds in (0.4, 59, 80, 320, 3600, 11_250)]
    assert told == ["0 s", "59 s", "1m20", "5m20", "1h00m", "3h07m"]


# --------------------------------------------------------------------------------------- the file


def test_who_looks_sees_what_the_driver_wrote(book, clock, tmp_path):
    file = RunningFile(tmp_path, book, 24, clock=clock)
    with RunLock(tmp_path):
        run_epochs(book, clock, 7, 5)
        book.at(7, "node-b", (0, 1))
        file.tick()
        found = seen(tmp_path)
        assert (found.state, found.total, found.driver) == ("living", 24, Holder.me())
        assert found.rows == book.rows()
        file.close()
        assert (seen(tmp_path).state, seen(tmp_path).rows) == ("living", ())
    assert seen(tmp_path).state == "none"
    assert not (tmp_path / FILE).exists()


def test_it_is_written_every_few_seconds_at_most(book, clock, tmp_path):
    file, path = RunningFile(tmp_path, book, 24, clock=clock), tmp_path / FILE
    written = []
    for _ in range(300):  # half a second each
        clock.now += 0.5
        if clock.now < 1030:
            book.begin(0, 3)
        path.unlink(missing_ok=True)
        file.tick()
        if path.exists():
            written.append(clock.now)
    gaps = [later - before for before, later in zip(written, written[1:], strict=False)]
    assert set(gaps) == {2.0, 10.0}
    assert gaps == sorted(gaps)


def test_a_disk_that_is_full_stops_nothing(book, tmp_path):
    file = RunningFile(tmp_path / "away", book, 24)
    file.tick()
    file.close()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"driver": {}}', '{"driver": 3, "written": 1, "total": 2, "running": []}',
     '{"driver": {"pid": 1, "host": "a"}, "written": 1, "total": 2, "running": [{"number": 1}]}'],
)  # fmt: skip
def test_a_file_that_is_no_whole_one_of_ours_says_nothing(text, tmp_path):
    (tmp_path / FILE).write_text(text)
    with RunLock(tmp_path):
        assert (seen(tmp_path).state, seen(tmp_path).rows) == ("living", ())


def test_rows_of_a_later_version_may_know_more(book, clock, tmp_path):
    book.begin(0, 3)
    with RunLock(tmp_path):
        RunningFile(tmp_path, book, 1, clock=clock).tick()
        content = json.loads((tmp_path / FILE).read_text())
        content["running"][0]["mood"] = "good"
        (tmp_path / FILE).write_text(json.dumps(content))
        assert seen(tmp_path).rows == book.rows()


def killed_driver(run):
    """Return the process of a driver that held the run and was killed."""
    code = (
        "import os, signal, sys; from pathlib import Path; from nas.ledger.lock import RunLock\n"
        "from nas.search.running import Running\n"
        "from nas.search.running_file import RunningFile\n"
        "run = Path(sys.argv[1])\n"
        "with RunLock(run):\n"
        "    book = Running(); book.begin(5, 3); RunningFile(run, book, 9).tick()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    process = subprocess.run([sys.executable, "-c", code, str(run)], env=env(), check=False)
    assert process.returncode == -9
    return process


def env():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_a_killed_drivers_rows_are_not_called_running(tmp_path):
    killed_driver(tmp_path)
    found = seen(tmp_path)
    assert (found.state, found.over, [r.number for r in found.rows]) == ("dead", True, [5])
    with RunLock(tmp_path):  # the next driver, before it has written
        found = seen(tmp_path)
        assert (found.state, found.rows) == ("living", ())


def test_a_process_that_nobody_has_waited_for_is_dead():
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    us = Holder.me()
    tries = 0
    while lives(Holder(process.pid, us.host)):
        time.sleep(0.01)  # a zombie from its end on
        assert (tries := tries + 1) < 3000
    assert process.wait() == 0
    assert lives(us) is True


def test_of_another_machines_driver_only_what_it_writes_is_known(book, clock, tmp_path):
    (tmp_path / OWNER).write_text("pid 12 on elsewhere")
    assert holder(tmp_path) == Holder(12, "elsewhere")
    assert lives(Holder(12, "elsewhere")) is None
    assert seen(tmp_path).state == "silent"
    book.begin(3, 2)
    RunningFile(tmp_path, book, 9, clock=clock).tick()
    content = json.loads((tmp_path / FILE).read_text())
    content["driver"] = {"pid": 12, "host": "elsewhere"}
    (tmp_path / FILE).write_text(json.dumps(content))
    for age, state in ((-30, "living"), (100, "living"), (130, "silent")):
        found = seen(tmp_path, now=lambda age=age: content["written"] + age)
        assert (found.state, found.over) == (state, False)
        assert found.rows == book.rows()
        assert found.age_seconds == pytest.approx(max(age, 0))


@pytest.mark.parametrize("text", ["", "pid x on y", "pid 1"])
def test_an_owner_that_cannot_be_read_is_nobody(text, tmp_path):
    (tmp_path / OWNER).write_text(text)
    assert holder(tmp_path) is None
