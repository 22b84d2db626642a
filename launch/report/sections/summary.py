"""What was searched and what came out, in sentences that say how sure they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from launch.report.findings import Findings, Searched
from launch.report.numbers import counted, interval, told, with_interval
from launch.report.page import Block, Paragraph, Section, Table
from nas.search.trust import suspicions, was_checked
from nas.search.winners import overruled


def make(found: Findings) -> Section:
    """Return a paragraph a run, and a table of several."""
    blocks: list[Block] = []
    for searched in found.runs:
        blocks += [Paragraph(text, kind) for text, kind in sentences(found, searched)]
    if len(found.runs) > 1:
        blocks.append(_side_by_side(found))
    return Section("summary", "What was searched, and what came out", "", blocks)


def sentences(found: Findings, searched: Searched) -> list[tuple[str, str]]:
    """Return the paragraphs about one run, each with its kind."""
    table = found.of(searched)
    texts = [(_searched(searched, table, named=len(found.runs) > 1), "text")]
    if searched.empty:
        return [*texts, (f"There is nothing to show: {searched.empty}.", "warning")]
    score, direction = next(iter(searched.legend.objectives.items()))
    winner = searched.best(score, direction)
    if winner is None:
        ended = len(searched.results)
        what = f"None of {counted(ended, 'finished trial')} is complete with a {score}"
        return [*texts, (f"{what}: there is no winner. The reasons are under Failures.", "warning")]
    texts.append((_winner(found, searched, table, winner, score), "text"))
    if (doubt := _doubt(searched, winner, score, direction)) is not None:
        texts.append(doubt)
    return texts


def overlapping(table: pd.DataFrame, number: int, score: str) -> tuple[int, int] | None:
    """Return how many other complete trials' intervals overlap a trial's, and of how many.

    None where the trial has no interval.
    """
    complete = table[table["status"] == "complete"]
    own = complete[complete["number"] == number]
    ends = interval(own.iloc[0].to_dict(), score) if len(own) else None
    if ends is None:
        return None
    others = complete[complete["number"] != number]
    low, high = _ends(others, score)
    there = ~(np.isnan(low) | np.isnan(high))
    overlap = there & (high >= ends[0]) & (low <= ends[1])
    return int(overlap.sum()), int(there.sum())


def _ends(rows: pd.DataFrame, score: str) -> tuple[Any, Any]:
    if f"{score}_low" in rows and f"{score}_high" in rows:
        return rows[f"{score}_low"].to_numpy(float), rows[f"{score}_high"].to_numpy(float)
    half = 1.959963984540054 * rows[f"{score}_stderr"].to_numpy(float)
    middle = rows[score].to_numpy(float)
    return middle - half, middle + half


def _searched(searched: Searched, table: pd.DataFrame, *, named: bool) -> str:
    document = searched.document
    decided = [f"{n} ({_choices(searched, n)})" for n in searched.legend.told_apart[:8]]
    if (more := len(searched.legend.told_apart) - len(decided)) > 0:
        decided.append(f"{more} more")
    statuses = table["status"].value_counts()
    ended = [f"{n:,} {status}" for status, n in statuses.items()]
    space = _name(document.get("space"))
    data = _name(document.get("data"))
    sampler = _name(document.get("sampler"))
    ways = [
        f"{n} ({'more' if d == 'max' else 'less'} is better)"
        for n, d in searched.legend.objectives.items()
    ]
    begin = f"{searched.label}: the" if named else "The"
    parts = [
        f"{begin} space {space} was searched on {data} by {sampler} for {' and '.join(ways)}.",
        f"What was decided: {', '.join(decided)}." if decided else "",
        f"The ledger holds {counted(len(table), 'different trial')}"
        + (f": {', '.join(ended)}." if ended else "."),
        _state(searched, statuses),
    ]
    return " ".join(part for part in parts if part)


def _state(searched: Searched, statuses: Any) -> str:
    if searched.state == "living":
        return "The search is still running: all that follows may change."
    if searched.state == "dead" or statuses.get("left", 0):
        return "The search was cut off before its end; psinas search --resume goes on with it."
    if searched.state == "silent":
        return "Whether the search still runs is not known: it has not been heard of for a while."
    return ""


def _winner(
    found: Findings, searched: Searched, table: pd.DataFrame, winner: Mapping[str, Any], score: str
) -> str:
    number, scores = winner["number"], winner["scores"]
    complete = int((table["status"] == "complete").sum())
    row = table[table["number"] == number].iloc[0]
    there = [n for n in found.decisions[:8] if n in row and not pd.isna(row[n])]
    decided = [f"{n} {told(row[n])}" for n in there]
    parts = [
        f"Trial {number} wins with {score} {with_interval(scores, score)}"
        + (" (95 % interval, for the draw of images)" if interval(scores, score) else "")
        + (f"; it has {', '.join(decided)}." if decided else ".")
    ]
    overlap = overlapping(table, number, score)
    if overlap is None:
        parts.append("Its score has no interval, so nothing says how sure the order is.")
    elif overlap[1] == 0:
        parts.append("There is no other complete trial to compare it with.")
    elif overlap[0] == 0:
        parts.append(f"No interval of the {overlap[1]:,} others overlaps its own.")
    else:
        parts.append(
            f"The intervals of {overlap[0]:,} of the {overlap[1]:,} others overlap its own: these "
            "images do not settle which of them is best."
        )
    limit = (searched.document.get("data") or {}).get("limit") or {}
    images = limit.get("validation")
    on = f"{images:,} validation images" if images else "validation images"
    parts.append(
        f"It was chosen among {counted(complete, 'complete trial')} on the {on} that scored it, so "
        "its score is likely too high; only test images, which no search sees, say by how much "
        f"(psinas score RUN:{number})."
    )
    if searched.document.get("repeats", 1) == 1:
        parts.append("Each trial was trained once: the luck of a seed is not in the interval.")
    return " ".join(parts)


def _doubt(
    searched: Searched, winner: Mapping[str, Any], score: str, direction: str
) -> tuple[str, str] | None:
    flagged = [r for r in searched.results if suspicions(r["scores"])]
    if not any(was_checked(r["scores"]) for r in searched.results):
        return (
            "No trial was checked for masked gradients (the metric suspicion was not configured): "
            "a robust accuracy here is what the attack found, and a stronger one may find less.",
            "warning",
        )
    if names := suspicions(winner["scores"]):
        return (
            f"Every trial that could win raises a suspicion flag, the winner too "
            f"({', '.join(names)}): its robust accuracy may be false.",
            "warning",
        )
    if beaten := overruled(searched.results, winner, score, direction):
        one = beaten[0]
        return (
            f"{counted(len(flagged), 'trial')} raised a suspicion flag, and {len(beaten):,} of "
            f"them scored better than the winner but may not win, such as trial {one['number']} "
            f"({told(one['scores'][score], score)}; {', '.join(suspicions(one['scores']))}).",
            "warning",
        )
    if flagged:
        return f"{counted(len(flagged), 'trial')} raised a suspicion flag; the winner none.", "text"
    return "No trial raised a suspicion flag.", "text"


def _side_by_side(found: Findings) -> Table:
    names = list(found.objectives)
    rows = []
    for searched in found.runs:
        table = found.of(searched)
        complete = table[table["status"] == "complete"]
        hours = table["seconds"].sum() / 3600 if len(table) else 0.0
        cells = []
        for name in names:
            top = searched.best(name, found.direction(name))
            cells.append(
                "–"
                if top is None
                else f"{with_interval(top['scores'], name)} (trial {top['number']})"
            )
        rows.append(
            [searched.label, f"{len(table):,}", f"{len(complete):,}", f"{hours:.3g}", *cells]
        )
    columns = ["run", "trials", "complete", "trial-hours", *(f"best {n}" for n in names)]
    return Table("The runs side by side.", columns, rows, frozenset({1, 2, 3}))


def _choices(searched: Searched, name: str) -> str:
    every: list[Any] = []
    for record in searched.run.records:
        if name in record.choices:
            every = list(record.choices[name])
            break
    if not every:
        return "one choice"
    numeric = all(isinstance(c, int | float) and not isinstance(c, bool) for c in every)
    if len(every) <= 5:
        return ", ".join(map(str, every))
    return f"{len(every)} choices" + (f" from {min(every)} to {max(every)}" if numeric else "")


def _name(part: Any) -> str:
    if isinstance(part, Mapping):
        return str(part.get("name", "?"))
    return str(part) if part else "?"
