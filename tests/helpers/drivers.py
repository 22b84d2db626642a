"""Searches as a user starts them, in processes that tests disturb."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from nas.errors import InputError
from nas.ledger.records import read_records
from nas.ledger.table import load_table

PSINAS = Path(sys.executable).with_name("psinas")
TIMINGS = ["train_seconds", "score_seconds", "seconds"]
LIMIT = 300
TRAINABLE = b"Trainable"  # in the name that Ray gives a worker: TrialActor with its resources


class Driver:
    """A driver that runs, with the session that it leads."""

    def __init__(self, config: Path, run: Path, *more: str) -> None:
        self.run, self.log = run, config.with_suffix(".log")
        command = [str(PSINAS), "search", str(config), "--resume", "--out", str(run), *more]
        with self.log.open("ab") as file:
            self.process = subprocess.Popen(
                command, stdout=file, stderr=file, start_new_session=True
            )

    def states(self) -> tuple[int, int]:
        """Return how many trials have ended and how many run."""
        try:
            records = read_records(self.run)
        except InputError:
            return 0, 0
        ended = sum(record.result is not None for record in records)
        return ended, len(records) - ended

    def busy(self) -> None:
        """Wait until it runs trials, and one more has ended."""
        ended, until = self.states()[0], time.monotonic() + LIMIT
        while not (self.states()[0] > ended and self.states()[1]):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until
            time.sleep(0.1)

    def workers(self) -> list[int]:
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                session = (place / "stat").read_text().rpartition(")")[2].split()[3]
                if (
                    session == str(self.process.pid)
                    and TRAINABLE in (place / "cmdline").read_bytes()
                ):
                    found.append(int(place.name))
            except OSError:
                continue
        return found

    def end(self, code: int | None) -> None:
        """Wait for its end; what it started may not outlive it."""
        found = self.process.wait(timeout=LIMIT)
        assert code is None or found == code, self.log.read_text()
        assert "Traceback" not in self.log.read_text()
        time.sleep(1)
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def compare(run: Path, expected: Path) -> None:
    """Every trial of the budget was finished once, with the scores of the undisturbed search."""
    records = read_records(run)
    assert [record.number for record in records] == list(range(24))
    assert all(record.result is not None for record in records)
    table, whole = (load_table(out).drop(columns=TIMINGS) for out in (run, expected))
    assert table.equals(whole)
