"""What the report is about: the runs, and one tidy table of all their trials.

Every section reads it, none changes it. A run without a ledger, or with none of its trials done,
is found like any other: its table has no rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from launch.report.numbers import told as value
from launch.runs.left import left_in, mark_left
from launch.runs.run import Run
from launch.show.shown_columns import DETAIL
from launch.show.tables import flags_of
from nas.errors import InputError, NoStudy
from nas.ledger.results import ORDER
from nas.ledger.table import Legend, table_of
from nas.search.running_file import seen
from nas.search.trust import plain_names
from nas.search.winners import best

if TYPE_CHECKING:
    from launch.runs.attacked import Attacked

RUN = "run"
"""The column of the table that says which run a trial is of: a label of ``Searched``."""

HIDDEN = frozenset({"suspicious", "number", "epochs", "rung", "seconds", "repeat_of"})
CURVES = ("_saturated", "_zero", "_limit", "_slope", "_lambda")


@dataclass(frozen=True)
class Searched:
    """One run directory.

    Attributes:
        label: its name, told apart from the other runs of the report.
        path: of the directory.
        run: what reads it, for a section that needs a model or a decision.
        document: its saved configuration.
        legend: objectives and decisions.
        results: of its finished trials, in the order in which they ended.
        state: of its driver: ``none``, ``living``, ``silent`` or ``dead``.
        empty: why there are no trials; nothing where there are.
    """

    label: str
    path: Path
    run: Run
    document: Mapping[str, Any]
    legend: Legend
    results: Sequence[Mapping[str, Any]]
    state: str
    empty: str = ""

    @property
    def completed(self) -> bool:
        """Whether a trial is complete, so that there is a winner."""
        return any(result["status"] == "complete" for result in self.results)

    def best(self, score: str, direction: str) -> Mapping[str, Any] | None:
        """Return the result that wins on a score: the earliest number of equals, or None."""
        by_number = sorted(self.results, key=lambda result: int(result["number"]))
        return best(by_number, score, direction)


@dataclass(frozen=True)
class Findings:
    """All that the report shows.

    Attributes:
        runs: as they were given.
        table: the trial tables one below the other, ``run`` first; a trial without a column of
            another run has NaN there.
        objectives: score -> ``max`` or ``min``, of the first run first.
        decisions: what tells trials apart, of any run.
        chosen: two scores for the front that were asked for; none takes the objectives.
        seconds: that models may be attacked for, in all; None asks no model anything.
    """

    runs: Sequence[Searched]
    table: pd.DataFrame
    objectives: Mapping[str, str]
    decisions: Sequence[str]
    chosen: Sequence[str] = ()
    seconds: float | None = None

    @cached_property
    def attacked(self) -> dict[str, Attacked]:
        """Run -> what its models answered under attack; nothing where none is to be asked."""
        if self.seconds is None:
            return {}
        from launch.runs.attacked import attacked  # imports torch

        found: dict[str, Attacked] = {}
        left = self.seconds
        for place, searched in enumerate(self.runs):
            if searched.completed:
                share = left / (len(self.runs) - place)
                found[searched.label] = attacked(searched.run, seconds=share)
                left -= found[searched.label].seconds
        return found

    @cached_property
    def drawn(self) -> dict[tuple[str, int], str]:
        """(run, number) of trials on a front -> the drawn cell, as an image's source."""
        if self.seconds is None:
            return {}
        from launch.report.cells import drawn_of  # imports torch

        return {
            (searched.label, number): source
            for searched in self.runs
            if searched.completed
            for number, source in drawn_of(searched.run).items()
        }

    @cached_property
    def complete(self) -> pd.DataFrame:
        """The rows of complete trials."""
        found: pd.DataFrame = self.table[self.table["status"] == "complete"]
        return found

    @cached_property
    def scores(self) -> list[str]:
        """Scores that a person reads: objectives first, then those that vary, details left out."""
        names = [str(n) for n in self.complete.columns]
        skipped = {RUN, "status", "reason", "architecture", *HIDDEN, *self.decisions}
        skipped |= {d for searched in self.runs for d in searched.legend.decisions}
        plain = [
            name
            for name in plain_names(names)
            if name not in skipped
            and not name.endswith((*DETAIL, *CURVES))
            and pd.api.types.is_numeric_dtype(self.complete[name])
            and self.complete[name].nunique() > 1
        ]
        first = [name for name in self.objectives if name in names]
        return [*first, *(name for name in plain if name not in first)]

    @property
    def numeric(self) -> list[str]:
        """Every column of numbers that a front may be asked for."""
        return [str(n) for n in plain_names(self.complete.select_dtypes("number").columns)]

    @cached_property
    def two(self) -> tuple[str, str] | None:
        """The scores of the front: as asked for, or the first two of the readable ones."""
        names = list(self.chosen) or [n for n in self.scores if n in self.complete]
        return (names[0], names[1]) if len(names) > 1 else None

    @cached_property
    def clean(self) -> str | None:
        """The score of clean accuracy, where there is one."""
        return "clean_accuracy" if "clean_accuracy" in self.complete else None

    @cached_property
    def robust(self) -> str | None:
        """The score of robust accuracy: an objective, or the first other one that is no clean."""
        names = [*self.objectives, "pgd_accuracy", *map(str, self.complete.columns)]
        fit = [n for n in names if n.endswith("_accuracy") and n in self.complete]
        return next((n for n in plain_names(fit) if not n.startswith("clean")), None)

    @cached_property
    def flags(self) -> dict[tuple[str, int], list[str]]:
        """(run, number) of a trial -> the suspicion flags that it raises."""
        return {
            (searched.label, number): names
            for searched in self.runs
            for number, names in flags_of(self.of(searched)).items()
        }

    def of(self, searched: Searched) -> pd.DataFrame:
        """Return the rows of one run."""
        found: pd.DataFrame = self.table[self.table[RUN] == searched.label]
        return found

    def direction(self, score: str) -> str:
        """Return ``max`` or ``min``: whether more of a score is better."""
        if score in self.objectives:
            return self.objectives[score]
        return self.runs[0].legend.direction(score)

    def told(self, row: Mapping[Any, Any]) -> str:
        """Return a trial in a few lines: its number, run, decisions, objectives and flags."""
        label, number = str(row[RUN]), int(row["number"])
        named = f"trial {number}" + (f" of {label}" if len(self.runs) > 1 else "")
        there = [n for n in self.decisions if n in row and not _missing(row[n])]
        decided = [f"{n} {value(row[n])}" for n in there]
        scored = [f"{n} {row[n]:.4g}" for n in self.objectives if n in row and _number(row[n])]
        flags = self.flags.get((label, number), [])
        doubt = [f"suspicious: {', '.join(flags)}"] if flags else []
        shown = decided if len(decided) <= 8 else [*decided[:8], f"and {len(decided) - 8} more"]
        lines = [", ".join(shown[i : i + 2]) for i in range(0, len(shown), 2)]
        return "\n".join(text for text in [named, *lines, *scored, *doubt] if text)


def gather(
    paths: Sequence[Path], chosen: Sequence[str] = (), seconds: float | None = None
) -> Findings:
    """Read run directories; models may be attacked for so many seconds.

    Raises:
        InputError: one is no run directory, or its ledger cannot be read.
    """
    labels = _labels(paths)
    runs, tables = [], []
    for path, label in zip(paths, labels, strict=True):
        searched, table = _searched(path, label)
        table.insert(0, RUN, label)
        runs.append(searched)
        tables.append(table)
    objectives: dict[str, str] = {}
    decisions: dict[str, None] = {}
    for searched in runs:
        for name, direction in searched.legend.objectives.items():
            objectives.setdefault(name, direction)
        decisions.update(dict.fromkeys(searched.legend.told_apart))
    table = _together(tables)
    there = [name for name in decisions if name in table]
    table.attrs = {"objectives": dict(objectives), "decisions": there}
    found = Findings(tuple(runs), table, objectives, tuple(there), tuple(chosen), seconds)
    if chosen and (len(chosen) != 2 or set(chosen) - set(found.numeric)):
        raise InputError(
            f"--scores: expected two scores ({', '.join(found.numeric) or 'there are none'}), "
            f"got {','.join(chosen)}"
        )
    return found


def _searched(path: Path, label: str) -> tuple[Searched, pd.DataFrame]:
    run = Run(path)
    driver = seen(path)
    try:
        table = mark_left(run.table(), left_in(run, driver))
        legend, empty = run.legend, "" if len(table) else "no trial has begun"
        results = sorted(run.results, key=lambda result: result.get(ORDER, result["number"]))
    except NoStudy:
        table, empty, results = table_of([]), "there is no ledger yet", []
        legend = Legend(run.document["objectives"], [], [])
    return Searched(label, path, run, run.document, legend, results, driver.state, empty), table


def _labels(paths: Sequence[Path]) -> list[str]:
    """Return the names of the directories, with as much of their path as tells them apart."""
    parts = [path.resolve().parts for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        labels = ["/".join(p[-length:]) for p in parts]
        if len(set(labels)) == len(labels):
            return labels
    return [f"{label} ({i})" for i, label in enumerate(labels, 1)]


def _together(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    full = [table for table in tables if len(table)]
    if not full:
        return tables[0]
    return full[0] if len(full) == 1 else pd.concat(full, ignore_index=True)


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _number(value: Any) -> bool:
    return isinstance(value, float | int) and value == value
