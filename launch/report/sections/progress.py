"""The best so far, over trials and over the time that they took."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from launch.report.charts import Chart, chart
from launch.report.findings import Findings, Searched
from launch.report.numbers import is_share, told
from launch.report.page import Section
from launch.report.plots import Axis, Plot, Series
from launch.report.sampling import few
from nas.search.trust import suspicions

POINTS = 800  # trials of all runs that are drawn as marks


def make(found: Findings) -> Section | None:
    """Return how fast the search found what it found; None where nothing is complete."""
    score = next(iter(found.objectives))
    curves = [(s, best_so_far(s.results, score, found.direction(score))) for s in found.runs]
    if not any(curve for _, curve in curves):
        return None
    way = "largest" if found.direction(score) == "max" else "smallest"
    charts = [
        _over(found, curves, score, "trials", "trials that have ended", 0),
        _over(found, curves, score, "hours", "trial-hours, one trial after another", 1),
    ]
    lead = (
        f"The {way} {score} of complete trials so far, in the order in which they ended; one "
        "with a suspicion flag does not count. A best of many noisy scores rises by luck too."
    )
    return Section("progress", "Best so far", lead, charts)


def best_so_far(
    results: Sequence[Mapping[str, Any]], score: str, direction: str
) -> list[tuple[int, float, float, float, int]]:
    """Return a row for every complete trial that has the score, in the order of the results.

    A row is (trials that had ended, hours of all of them, score, best so far, number). The best is
    NaN until there is a trial without a suspicion flag.
    """
    sign = 1 if direction == "max" else -1
    rows, hours, top = [], 0.0, math.nan
    for ended, result in enumerate(results, 1):
        hours += float(result.get("seconds") or 0.0) / 3600
        value = result["scores"].get(score, math.nan)
        if result["status"] != "complete" or not math.isfinite(value):
            continue
        if not suspicions(result["scores"]) and not sign * value <= sign * top:
            top = value
        rows.append((ended, hours, float(value), top, int(result["number"])))
    return rows


Curve = list[tuple[int, float, float, float, int]]


def _over(
    found: Findings,
    curves: Sequence[tuple[Searched, Curve]],
    score: str,
    name: str,
    axis: str,
    at: int,
) -> Chart:
    series = []
    several = len(curves) > 1
    for place, (searched, curve) in enumerate(curves):
        if not curve:
            continue
        drawn = [curve[i] for i in few(len(curve), most=POINTS // len(curves))]
        told_all = [f"trial {row[4]}\n{score} {told(row[2], score)}" for row in drawn]
        own = f"{searched.label}: " if several else ""
        series.append(
            Series(
                f"{own}every trial",
                [row[at] for row in drawn],
                [row[2] for row in drawn],
                "points",
                place,
                told_all,
                faint=not several,
                size=6,
                hollow=several,
            )
        )
        turns = [row for i, row in enumerate(curve) if i == 0 or row[3] != curve[i - 1][3]]
        turns += [curve[-1]]
        series.append(
            Series(
                f"{own}best so far",
                [row[at] for row in turns],
                [row[3] if math.isfinite(row[3]) else None for row in turns],
                "steps",
                place,
                [f"trial {row[4]}\n{score} {told(row[3], score)}" for row in turns],
            )
        )
    total = sum(len(curve) for _, curve in curves)
    shown = sum(len(s.x) for s in series if s.kind == "points")
    said = f"{shown:,} of {total:,} trials as marks; the line is of all." if shown < total else ""
    plot = Plot(tuple(series), Axis(axis, low=0), Axis(score, percent=is_share(score)))
    title = "By trials" if at == 0 else "By the time of trials"
    return chart(f"progress-{name}", title, said or f"All {total:,} complete trials.", plot)
