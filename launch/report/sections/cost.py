"""What the search cost in trial-hours, and where the time went."""

from __future__ import annotations

import numpy as np

from launch.report.charts import chart
from launch.report.findings import Findings, Searched
from launch.report.page import Block, Section, Table
from launch.report.plots import Axis, Plot, Series

HOUR = 3600.0
MAIN = ("train_seconds", "score_seconds")


def make(found: Findings) -> Section | None:
    """Return hours by what they were spent on; None where no trial has a time."""
    if found.table.empty or not found.table["seconds"].notna().any():
        return None
    parts = {s.label: where_time_went(found, s) for s in found.runs}
    names = list(dict.fromkeys(name for own in parts.values() for name in own))
    several = len(found.runs) > 1
    series = []
    for place, (label, own) in enumerate(parts.items()):
        share = 0.7 / len(parts)
        at = [i + (place - (len(parts) - 1) / 2) * share for i in range(len(names))]
        hours = [own.get(name, 0.0) for name in names]
        hover = [f"{name}\n{h:.3g} hours" for name, h in zip(names, hours, strict=True)]
        series.append(
            Series(label, hours, at, "bars", place, hover, legend=several, fill=0.9 * share)
        )
    plot = Plot(
        tuple(series),
        Axis("trial-hours", low=0),
        Axis("", categories=tuple(names)),
        horizontal=True,
        height=90 + 34 * len(names),
    )
    total = float(found.table["seconds"].sum()) / HOUR
    timed = int(found.table["seconds"].notna().sum())
    mean = total * HOUR / timed
    lead = (
        f"{timed:,} trials took {total:.3g} trial-hours in all, {mean:.3g} s each on average. "
        "Trial-hours add up the time of each trial; trials that ran at once make a search shorter "
        "than that, and share a device."
    )
    caption = (
        "Training and scoring of trials that were scored; rest is their setting up; the others are "
        "trials that did not complete."
    )
    blocks: list[Block] = [chart("cost-chart", "Where the time went", caption, plot)]
    if (table := _metrics(found)) is not None:
        blocks.append(table)
    return Section("cost", "Cost", lead, blocks)


def where_time_went(found: Findings, searched: Searched) -> dict[str, float]:
    """Return what -> hours of one run; they sum to the seconds of its trials."""
    table = found.of(searched)
    complete = table[table["status"] == "complete"]
    parts: dict[str, float] = {}
    known = 0.0
    for name in MAIN:
        if name in complete:
            hours = float(complete[name].sum()) / HOUR
            parts["training" if name == MAIN[0] else "scoring"] = hours
            known += hours
    rest = float(complete["seconds"].sum()) / HOUR - known
    if rest > 1e-3 * known:
        parts["rest"] = rest
    for status, rows in table[table["status"] != "complete"].groupby("status", sort=False):
        if rows["seconds"].notna().any():
            parts[str(status)] = float(rows["seconds"].sum()) / HOUR
    return {name: hours for name, hours in parts.items() if np.isfinite(hours)}


def _metrics(found: Findings) -> Table | None:
    names = [
        str(n)
        for n in found.complete.columns
        if str(n).endswith("_seconds") and n not in MAIN and found.complete[n].notna().any()
    ]
    if not names:
        return None
    rows = [
        [n, f"{found.complete[n].sum() / HOUR:.3g}", f"{found.complete[n].mean():.3g}"]
        for n in names
    ]
    columns = ["measured within a trial", "hours in all", "seconds a trial"]
    return Table("Parts that scores timed by themselves.", columns, rows, frozenset({1, 2}))
