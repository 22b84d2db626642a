"""What the page of all reproductions says: each one's numbers, picture, and what is not the same.

Read from what reproductions have left in the directory of runs; nothing is run or measured again.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from launch.config.config import different_values, load_config
from launch.papers.outcomes import Outcome, read_outcomes
from launch.papers.planned import Planned, compared, planned
from launch.papers.registry import REPRODUCTIONS
from launch.runs.nearby import CONFIG
from launch.runs.run import Run
from launch.show.comparison import Comparison, tally
from nas.errors import InputError, one_line

PAPERS = {
    "psi": "Preliminary Analysis of Adversarial Susceptibility (the Ψ paper)",
    "cubuk": "Cubuk et al. 2017 (arXiv 1711.02846)",
    "sutton": "Sutton et al. 2023 (arXiv 2309.03665)",
    "peck": "Peck et al. 2017",
}
"""First word of a reproduction's name -> its paper."""
NOT_TOLD = ("name", "keep.", "resources.", "scheduler", "storage", "retrain.resources", "modules",
            "metrics")  # fmt: skip
SHOWN = 12  # differences that are told
ROWS, COLUMNS = 12, 10  # of a table that are shown


@dataclass(frozen=True)
class Search:
    """What a search of a reproduction left.

    Attributes:
        path: its run directory.
        statuses: of its trials -> how many.
        seconds: that they took, in all.
    """

    path: Path
    statuses: Mapping[str, int]
    seconds: float

    @property
    def said(self) -> str:
        """It as one line."""
        trials = ", ".join(f"{count} {status}" for status, count in self.statuses.items())
        return f"{self.path.name}: {trials or 'no'} trials, {self.seconds:.0f} s of them"


@dataclass(frozen=True)
class Entry:
    """One reproduction on the page.

    Attributes:
        name, about: it.
        plan: where it is.
        outcome: what became of it, where that was noted.
        comparisons: the paper's numbers beside ours.
        prints: whether the paper prints numbers at all.
        differences: of our searches from the paper's own, "key: ours (the paper's run: theirs)".
        searches: what they left.
        problem: why it cannot be shown, "" where it can.
        table: its first rows and columns; None where there is none.
        rows: of all of the table.
        text: what it printed, "" where that was not kept.
    """

    name: str
    about: str
    plan: Planned | None
    outcome: Outcome | None
    comparisons: Sequence[Comparison] = ()
    prints: bool = True
    differences: Sequence[str] = ()
    searches: Sequence[Search] = ()
    problem: str = ""
    table: pd.DataFrame | None = None
    rows: int = 0
    text: str = ""

    @property
    def there(self) -> bool:
        """Whether it left a table and a picture."""
        return self.table is not None

    @property
    def paper(self) -> str:
        """The paper's title."""
        return PAPERS[self.name.partition("-")[0]]

    @property
    def verdict(self) -> str:
        """What agrees, in a few words."""
        if not self.there:
            return f"failed: {self.problem}" if self.problem else "not run"
        if not self.comparisons:
            return "no number to compare" if self.prints else "the paper prints no number"
        agree, differ, missing = tally(self.comparisons)
        rest = f", {missing} not measured" if missing else ""
        return f"{agree} of {agree + differ} numbers agree{rest}"

    def why(self, found: Comparison) -> str:
        """Return why a number does not agree, as far as it is known; "" of one that does."""
        if found.agrees is not False:
            return ""
        images = next((d for d in self.differences if d.startswith("data.name: ")), "")
        small = images.replace("data.name: ", "of ").replace("(in full: ", "(the paper: ")
        return found.note or small or ("run in small, see below" if self.differences else "")

    @property
    def picture(self) -> str:
        """Its picture as a data URI; "" where there is none."""
        if self.plan is None or not self.plan.picture.is_file():
            return ""
        return "data:image/png;base64," + base64.b64encode(self.plan.picture.read_bytes()).decode()


def entries(base: Path, *, quick: bool) -> list[Entry]:
    """Return what is there of every reproduction, in the order of the registry.

    Args:
        base: where run directories are.
        quick: look for the small ones where it was not noted which was made.
    """
    outcomes = read_outcomes(base)
    return [_entry(name, outcomes.get(name), base, quick) for name in REPRODUCTIONS]


def _entry(name: str, known: Outcome | None, base: Path, quick: bool) -> Entry:
    asked = REPRODUCTIONS[name]
    try:
        plan = _plan(name, known, base, quick)
        failed = known.reason if known else ""
        if not plan.there:
            return Entry(name, asked.about, plan, known, problem=failed)
        table = pd.read_csv(plan.table)
        searches = [_search(place) for _, place in plan.searches if (place / CONFIG).exists()]
        found = compared(plan)
    except (InputError, OSError, ValueError, KeyError, IndexError) as error:
        return Entry(name, asked.about, None, known, problem=one_line(error))
    return Entry(
        name,
        asked.about,
        plan,
        known,
        found,
        asked.compare is not None,
        _differences(plan),
        searches,
        failed,
        table.iloc[:ROWS, :COLUMNS],
        len(table),
        plan.text.read_text(encoding="utf-8") if plan.text.is_file() else "",
    )


def _plan(name: str, known: Outcome | None, base: Path, quick: bool) -> Planned:
    """Return the plan that was carried out, else the one of two that has left something."""
    first = planned(name, quick=known.quick if known else quick, base=base)
    if known or first.there:
        return first
    other = planned(name, quick=not quick, base=base)
    return other if other.there else first


def _search(place: Path) -> Search:
    table = Run(place).table()
    statuses = {str(k): int(v) for k, v in table["status"].value_counts().items()}
    seconds = float(table["seconds"].sum()) if "seconds" in table else 0.0
    return Search(place, statuses, seconds)


def _differences(plan: Planned) -> list[str]:
    """Return where our searches are not what the paper's own presets say."""
    apart: dict[str, None] = {}
    for source, (config, place) in zip(plan.asked.searches, plan.searches, strict=False):
        theirs, ours = load_config(source).flat(), _flat(config, place)
        for key in different_values(theirs, ours):
            if not key.startswith(NOT_TOLD):
                told = f"{key}: {_said(ours.get(key))} (in full: {_said(theirs.get(key))})"
                apart[told] = None
    found = list(apart)
    rest = [f"and {len(found) - SHOWN} more keys"] if len(found) > SHOWN else []
    return found[:SHOWN] + rest


def _flat(config: Any, place: Path) -> dict[str, Any]:
    """Return the configuration that was run; what was planned where that cannot be read."""
    try:
        found: dict[str, Any] = Run(place).config.flat()
    except (InputError, OSError):
        return dict(config.flat())
    return found


def _said(value: object) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
