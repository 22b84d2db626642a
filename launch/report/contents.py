"""The report of one run or several: which sections it has, in which order.

A section is a module with ``make(found) -> Section | None``. To add one, write it and put it in
its place in ``SECTIONS``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from launch.report.findings import Findings, gather
from launch.report.numbers import counted
from launch.report.page import GENERATOR, Section, is_page, write_page
from launch.report.sections import (
    cells,
    configuration,
    cost,
    distributions,
    examples,
    failures,
    flags,
    front,
    importance,
    measures,
    parallel,
    progress,
    robustness,
    summary,
    trends,
    winners,
)
from launch.show.outputs import check_file
from nas.errors import InputError

SECTIONS = (
    summary,
    progress,
    front,
    winners,
    robustness,
    cells,
    examples,
    importance,
    parallel,
    distributions,
    trends,
    measures,
    flags,
    failures,
    cost,
    configuration,
)
"""In the order of the page."""


def sections_of(found: Findings) -> list[Section]:
    """Return the sections that have something to say."""
    made = (section.make(found) for section in SECTIONS)
    return [section for section in made if section is not None]


def write_report(
    runs: Sequence[Path],
    out: Path | None = None,
    scores: Sequence[str] = (),
    *,
    seconds: float | None = None,
) -> Path:
    """Write the report of runs; return where it is: ``report.html`` of the first by default.

    Args:
        runs: run directories.
        out: where to.
        scores: the front's two.
        seconds: that models may be attacked for; None asks no model anything.

    Raises:
        InputError: no run directory, an unknown score, or a file there that no report is.
    """
    found = gather(runs, scores, seconds)
    where = runs[0] / "report.html" if out is None else out
    check_place(where)
    labels = [searched.label for searched in found.runs]
    title = ", ".join(labels) if len(labels) < 4 else f"{len(labels)} searches"
    ways = ", ".join(f"{name} {way}" for name, way in found.objectives.items())
    subtitle = f"{counted(len(found.table), 'trial')} · objectives {ways}"
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    footer = f"Written by psinas report on {now} from {', '.join(labels)}."
    write_page(where, title, sections_of(found), subtitle=subtitle, footer=footer)
    return where


def check_place(out: Path) -> None:
    """Refuse a place that holds anything but a report.

    Raises:
        InputError: such a place.
    """
    check_file(out)
    if out.exists() and not is_page(out):
        raise InputError(
            f"--out: expected a new file or a report to replace, got {out}, "
            f"which no {GENERATOR} wrote"
        )
