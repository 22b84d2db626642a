"""The page of all reproductions: one HTML file without network, from what is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from launch.papers.entries import Entry, entries
from launch.papers.outcomes import machine
from launch.show.comparison import tally
from nas.files import write_whole

FILE = "reproduction.html"


@dataclass(frozen=True)
class Written:
    """A page that was written: where, and what it says in two lines."""

    path: Path
    summary: str


def write_page(base: Path, *, quick: bool) -> Written:
    """Write ``reproduction.html`` of what is there in a directory of runs.

    Args:
        base: where run directories are; it is made where there is none.
        quick: look for the small reproductions where it was not noted which were made.
    """
    found = entries(base, quick=quick)
    text = page(found)
    base.mkdir(parents=True, exist_ok=True)
    path = base / FILE
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))
    return Written(path, summary(found))


def page(found: Sequence[Entry]) -> str:
    """Return the page as HTML; whatever text is in it is escaped."""
    environment = Environment(
        loader=PackageLoader("launch.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    papers: dict[str, list[Entry]] = {}
    for entry in found:
        papers.setdefault(entry.paper, []).append(entry)
    return environment.get_template("reproduction.html").render(
        papers=papers, summary=summary(found), made=made(found)
    )


def summary(found: Sequence[Entry]) -> str:
    """Return what is there and what of it agrees, in two sentences."""
    there = [entry for entry in found if entry.there]
    failed = [entry.name for entry in found if entry.problem]
    agree, differ, missing = tally(c for entry in there for c in entry.comparisons)
    lines = [
        f"{len(there)} of {len(found)} tables and figures are there"
        + (f"; {len(failed)} failed: {', '.join(failed)}." if failed else "."),
        f"Of {agree + differ + missing} numbers that the papers print, {agree} agree, {differ} "
        f"differ and {missing} were not measured.",
    ]
    return " ".join(lines)


def made(found: Sequence[Entry]) -> list[str]:
    """Return on which machines and with which versions it was made, and in how long."""
    outcomes = [entry.outcome for entry in found if entry.outcome]
    seconds = sum(each.seconds for each in outcomes)
    places: dict[str, None] = {}
    for each in outcomes:
        own = ", ".join(f"{k} {str(v)[:12]}" for k, v in each.versions.items() if v)
        places[f"{each.machine}: {own}"] = None
    trials = {search.path: search.seconds for entry in found for search in entry.searches}
    lines = [f"{seconds / 60:.1f} minutes in all, as far as it was noted"] if outcomes else []
    lines += [
        f"{sum(trials.values()) / 60:.1f} minutes of trials in {len(trials)} searches",
    ]
    return [*lines, *(places or [f"{machine()} wrote this page"])]
