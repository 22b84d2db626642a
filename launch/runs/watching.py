"""Watches a search from outside: reads its run directory again and again, and writes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from launch.runs.left import left_in
from launch.runs.run import Run
from launch.show.watched import Look
from nas.errors import NoStudy
from nas.ledger.records import standing
from nas.ledger.results import JOURNAL
from nas.search.running_file import seen


def watch(
    path: Path, every: float, *, sleep: Callable[[float], None] | None = None
) -> Iterator[Look]:
    """Yield looks at a run, ``every`` seconds apart; the last one is of a search that is over.

    Raises:
        InputError: no run directory, or a ledger that cannot be read.
    """
    run, read = Run(path), None
    while True:
        now = _version(path)
        if read is None or now != read or run.document.get("storage"):
            run, read = Run(path), now
        found = look(run)
        yield found
        if found.over:
            return
        (sleep or time.sleep)(every)


def look(run: Run) -> Look:
    """Return what there is to see of a run."""
    found = seen(run.path)
    try:
        records = standing(run.records)
        left = left_in(run, found)
        results = run.results
    except NoStudy:  # it has only just begun
        records, left, results = [], set(), []
    running = {record.number for record in records if record.result is None}
    objectives = run.document["objectives"]
    return Look(run.path, found, results, frozenset(running - left), frozenset(left), objectives)


def _version(path: Path) -> tuple[int, int]:
    """Return what changes with the run's own journal; 10,000 trials take a second to read."""
    try:
        found = (path / JOURNAL).stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns
