"""A run directory, opened: its configuration, ledger, results and table, each read once.

Open this to look at a search that is there, finished or not. Looking loads neither torch nor ray
nor optuna; what needs them, such as the architecture of a trial, imports them when asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from launch.config.documents import read_document
from launch.runs.nearby import CONFIG as CONFIG
from launch.runs.nearby import named_nearby
from nas.errors import InputError
from nas.ledger.records import Record, read_records, results_of, told_apart
from nas.ledger.results import STUDY
from nas.ledger.table import Legend, table_of
from nas.names import known_names
from nas.search.trust import plain_names
from nas.search.winners import best

if TYPE_CHECKING:
    from launch.config.config import Config
    from nas.trial.trial import Trial


@dataclass(frozen=True)
class FinishedTrial:
    """A row of the ledger with the trial behind it."""

    number: int
    trial: Trial
    result: dict[str, Any]


class Run:
    """What one search left behind. A search that goes on is seen by a new one of these.

    Args:
        path: of the run directory.
        records: of the ledger, where somebody has read them already.

    Raises:
        InputError: it is no run directory.
    """

    def __init__(self, path: str | Path, records: list[Record] | None = None) -> None:
        self.path = Path(path)
        self._records = records
        if not (self.path / CONFIG).exists():
            raise InputError(
                f"expected a run directory with a {CONFIG}, got {self.path}; "
                f"{named_nearby(self.path)}"
            )

    @cached_property
    def document(self) -> Mapping[str, Any]:
        """The saved configuration as YAML."""
        return read_document(self.path / CONFIG)

    @cached_property
    def config(self) -> Config:
        """The saved configuration."""
        from launch.config.config import parse_config  # imports torch
        from launch.config.trust import admit

        admit(self.document, self.path)
        return parse_config(self.document)

    @property
    def id(self) -> str | None:
        """What tells this run from another of its name."""
        found: str | None = self.document.get("run_id")
        return found

    @property
    def checksums(self) -> Mapping[str, Mapping[str, str]]:
        """Dataset -> part -> checksum of what the search saw; empty of runs from before them."""
        found: Mapping[str, Mapping[str, str]] | None = self.document.get("data_checksum")
        return found or {}

    @cached_property
    def records(self) -> list[Record]:
        """Every trial of the ledger."""
        if self._records is not None:
            return self._records
        storage = self.document.get("storage")
        name = self.document["name"] if storage else STUDY
        return read_records(self.path, storage=storage, name=name, run_id=self.id)

    @cached_property
    def drivers(self) -> dict[str, dict[str, Any]]:
        """What the drivers of a database said of themselves; of a run of its own nothing."""
        storage = self.document.get("storage")
        if not storage:
            return {}
        from nas.ledger.drivers import drivers_said  # imports Optuna
        from nas.ledger.study import open_study

        return drivers_said(open_study(self.path, storage=storage, name=self.document["name"]))

    @cached_property
    def results(self) -> list[dict[str, Any]]:
        """What the ledger holds of every different finished trial, by number."""
        return results_of(self.records)

    @cached_property
    def judged_results(self) -> list[dict[str, Any]]:
        """:attr:`results` with what later judges found among the scores: ``judge_<score>``."""
        judged = {record.number: record.judged for record in self.records if record.judged}
        return [
            {**r, "scores": {**r["scores"], **judged.get(r["number"], {})}} for r in self.results
        ]

    @property
    def objective(self) -> str:
        """The first objective, which decides the winner."""
        return next(iter(self.legend.objectives))

    @cached_property
    def legend(self) -> Legend:
        """What the columns of the table are."""
        choices: dict[str, tuple[Any, ...]] = {}
        for record in self.records:
            choices = {**record.choices, **choices}
        shown = told_apart(choices, self.document.get("vary", {}))
        return Legend(self.document["objectives"], list(choices), shown)

    def table(self, *, repeats: bool = False) -> pd.DataFrame:
        """Return the trial table; see :func:`nas.ledger.table.load_table`."""
        return table_of(self.records, repeats=repeats)

    def trial(self, number: int) -> FinishedTrial:
        """Return a finished trial; a repeat gives the one that it repeats.

        Raises:
            InputError: no such trial, or it is still running.
        """
        record = self._numbered.get(number)
        if record is None:
            known = f"0 ... {max(self._numbered, default=-1)}"
            raise InputError(f"--trial: expected {known} of {self.path}, got {number}")
        if record.result is None:
            raise InputError(f"--trial: expected a finished trial, got {number}, which is running")
        if record.result["repeat_of"] is not None:
            return self.trial(record.result["repeat_of"])
        return FinishedTrial(number, self._plan.trial(record.params), record.result)

    def answers(self, number: int) -> dict[str, Any]:
        """Return decision -> choice of a finished trial, as the ledger has them.

        Raises:
            InputError: as :meth:`trial`.
        """
        self.trial(number)
        return dict(self._numbered[number].params)

    def best(self, score: str | None = None) -> FinishedTrial:
        """Return the complete trial with the best score, of the first objective by default.

        Scores that later judges gave count too; of one that not all of them had, see
        :func:`nas.analysis.judge`.

        Raises:
            InputError: no trial has that score.
        """
        name = self.objective if score is None else score
        found = best(self.judged_results, name, self.legend.direction(name))
        if found is None:
            known = sorted({name for r in self.judged_results for name in plain_names(r["scores"])})
            likely = [*(n for n in self.legend.objectives if n in known), *known]
            names = known_names(name, likely, f"psinas trials {self.path} --format csv")
            raise InputError(f"expected a score of a complete trial ({names}), got {name!r}")
        return self.trial(found["number"])

    @cached_property
    def _numbered(self) -> dict[int, Record]:
        """Number -> its trial, after a retry the last; a repeat where it has a number of its own.

        Only ledgers of before there were places number repeats.
        """
        return {
            record.number: record
            for record in self.records
            if (record.result or {}).get("repeat_of") != record.number
        }

    @cached_property
    def _plan(self) -> Any:
        return self.config.plan()
