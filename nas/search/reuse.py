"""Trials that another run has finished: their scores are taken from there instead of a GPU's time.

Two trials are equal that must have the same scores: architecture, recipe, data and repeats
(``Trial.key``), the search's seed and its metrics. The runs that are read are never written to.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.files import write_whole
from nas.ledger.results import ORDER, REUSED_FROM, RUNGS
from nas.search.shared import TRAINED_IN
from nas.trial.files import LAST_WEIGHTS, WEIGHTS, trial_directory
from nas.trial.state import better_scores

REUSABLE = ("complete", "diverged", "invalid")
"""Statuses that follow from the trial alone. A machine, a limit or a mistake that has been mended
since may be why another one ended, and whom a scheduler stops depends on who was there."""

OF_THE_OTHER = ("number", "architecture", "key", "repeat_of", ORDER, RUNGS, TRAINED_IN, REUSED_FROM)
"""Keys of a result that say what it was in its own run."""

FILES = ("architecture.json", "epochs.csv")


@dataclass(frozen=True)
class Earlier:
    """A trial that another run has finished.

    Attributes:
        result: what that run's ledger holds of it.
        homes: run directory and number of whoever may have its files, that run itself first. Of
            several drivers each has the files of its own trials, and it may have been reused there.
    """

    result: Mapping[str, Any]
    homes: tuple[tuple[Path, int], ...]

    @property
    def home(self) -> tuple[Path, int]:
        """The run directory and number that have the weights; those of its own run if none do."""
        there = [h for h in self.homes if (trial_directory(*h) / WEIGHTS).exists()]
        return (there or list(self.homes))[0]

    def outcome(self) -> dict[str, Any]:
        """Return what a search is told of the trial, as its own worker would tell it."""
        outcome = {n: v for n, v in self.result.items() if n not in OF_THE_OTHER}
        if outcome["status"] == "diverged" and outcome["scores"]:
            # An objective of that search was not finite; it may be none of this one's.
            outcome |= {"status": "complete", "reason": ""}
        run, number = self.home
        return {**outcome, REUSED_FROM: f"{run}:{number}"}

    def rungs(self, epochs: Iterable[int]) -> dict[str, dict[str, float]] | None:
        """Return what it had after some epochs, as the ledger keeps it; None: nobody knows.

        Args:
            epochs: counted from 1; those that it did not reach are left out.
        """
        for home in self.homes:
            path = trial_directory(*home) / "epochs.csv"
            try:
                with path.open(newline="", encoding="utf-8") as file:
                    rows = {int(row["epoch"]): row for row in csv.DictReader(file)}
                return {str(epoch): better_scores(rows[epoch]) for epoch in epochs if epoch in rows}
            except (OSError, KeyError, ValueError):
                continue
        return None

    def copy_files(self, run: Path, number: int) -> None:
        """Copy the description and the epochs into a run directory, its weights aside."""
        directory = trial_directory(run, number)
        directory.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            for home in self.homes:
                if _copy(trial_directory(*home) / name, directory / name):
                    break


def origin(result: Mapping[str, Any]) -> tuple[Path, int] | None:
    """Return the run directory and the number whose scores a result took; None: it has its own."""
    run, _, number = result.get(REUSED_FROM, "").rpartition(":")
    return (Path(run), int(number)) if run else None


def fetch_weights(run: Path, results: Iterable[Mapping[str, Any]]) -> None:
    """Copy the weights of reused trials into a run directory, where they are not there yet.

    Those that lie nowhere any more stay away, and so do those of another driver's trials.

    Args:
        run: the run directory.
        results: of the ledger, with their numbers.
    """
    for result in results:
        elsewhere = Path(result.get(TRAINED_IN, run)).resolve() != run.resolve()
        if (home := origin(result)) is None or elsewhere:
            continue
        directory = trial_directory(run, result["number"])
        if not (directory / WEIGHTS).exists():
            for name in (LAST_WEIGHTS, WEIGHTS):
                _copy(trial_directory(*home) / name, directory / name, durable=True)


def _copy(source: Path, target: Path, *, durable: bool = False) -> bool:
    """Copy a file, whole or not at all; return False where it is not there to be read.

    Raises:
        OSError: it cannot be written.
    """
    try:
        file = source.open("rb")
    except OSError:
        return False
    with file:

        def write(partial: Path) -> None:
            with partial.open("wb") as out:
                shutil.copyfileobj(file, out, 1 << 20)

        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, write, durable=durable)
    return True
