"""The Pareto front of two scores: the trials that no other beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from launch.report.charts import chart
from launch.report.figures import SYMBOLS
from launch.report.findings import RUN, Findings
from launch.report.numbers import counted, is_share
from launch.report.page import Section
from launch.report.plots import SHAPES, Axis, Plot, Series
from launch.report.sampling import few, front_of_two, said

CHOICES = 10  # scores that a reader may choose


def make(found: Findings) -> Section | None:
    """Return the front of two scores, and all that a reader needs to choose two others."""
    if found.two is None or len(found.complete) == 0:
        return None
    a, b = found.two
    ways = (found.direction(a), found.direction(b))
    on = front_of_two(_column(found, a), _column(found, b), ways)
    names = list(dict.fromkeys([a, b, *found.scores]))[:CHOICES]
    kept = np.flatnonzero(on | any_front(found, names))
    shown = few(len(found.complete), kept)
    plot = front_plot(found, a, b, on, shown)
    caption = said(len(shown), len(found.complete), "those on a front")
    if any(found.flags):
        caption += " Crossed out: trials that raise a suspicion flag; they stand on the front too."
    title = f"{b} against {a}"
    lead = (
        f"{counted(int(on.sum()), 'trial')} of {counted(len(found.complete), 'complete trial')} "
        f"{'is' if on.sum() == 1 else 'are'} on the front of {a} ({ways[0]}) and {b} ({ways[1]}): "
        "no other trial is as good in both and better in one. Both scores are noisy, and a front "
        "picks the lucky ends of both."
    )
    chooser = _chooser(found, names, shown, a, b)
    return Section(
        "front", "Pareto front", lead, [chart("front-chart", title, caption, plot, chooser=chooser)]
    )


def front_plot(
    found: Findings, a: str, b: str, on: NDArray[np.bool_], shown: NDArray[np.intp]
) -> Plot:
    """Return the plot of some complete trials, those on the front full and joined by a line."""
    rows = found.complete
    x, y, labels = _column(found, a), _column(found, b), rows[RUN].to_numpy()
    flagged = flags_of_rows(found)
    several = len(found.runs) > 1
    series = []
    front = np.flatnonzero(on)
    front = front[np.argsort(x[front], kind="stable")]
    if len(front) > 1:
        series.append(
            Series("", list(x[front]), list(y[front]), "line", 5, faint=True, legend=False)
        )
    for place, searched in enumerate(found.runs):
        mine = labels == searched.label
        own = f"{searched.label}: " if several else ""
        rest = [i for i in shown if mine[i] and not on[i]]
        best = [i for i in shown if mine[i] and on[i]]
        told = [found.told(rows.iloc[i].to_dict()) for i in best]
        series.append(
            Series(f"{own}other trials", x[rest].tolist(), y[rest].tolist(), "points", place,
                   faint=not several, hollow=several, size=6)
        )  # fmt: skip
        series.append(
            Series(f"{own}front", x[best].tolist(), y[best].tolist(), "points", place, told, size=9)
        )
    if doubtful := [i for i in shown if flagged[i]]:
        series.append(
            Series("suspicious", x[doubtful].tolist(), y[doubtful].tolist(), "points", 4, size=8)
        )
    return Plot(tuple(series), axis_of(found, a), axis_of(found, b), height=400)


def axis_of(found: Findings, score: str) -> Axis:
    """Return the axis of a score: logarithmic where it spans much, percent for accuracies."""
    values = _column(found, score)
    values = values[np.isfinite(values)]
    wide = len(values) > 0 and values.min() > 0 and values.max() > 50 * values.min()
    better = "more is better" if found.direction(score) == "max" else "less is better"
    return Axis(f"{score} ({better})", log=bool(wide), percent=is_share(score))


def any_front(found: Findings, names: Sequence[str]) -> NDArray[np.bool_]:
    """Return which complete trials are on the front of some two of these scores."""
    on = np.zeros(len(found.complete), dtype=bool)
    for a, b in combinations(names, 2):
        ways = (found.direction(a), found.direction(b))
        on |= front_of_two(_column(found, a), _column(found, b), ways)
    return on


def flags_of_rows(found: Findings) -> list[bool]:
    """Return whether each complete trial raises a suspicion flag."""
    pairs = zip(found.complete[RUN], found.complete["number"], strict=True)
    return [(str(run), int(number)) in found.flags for run, number in pairs]


def _column(found: Findings, name: str) -> Any:
    return found.complete[name].to_numpy(float, na_value=np.nan)


def _chooser(
    found: Findings, names: Sequence[str], shown: NDArray[np.intp], a: str, b: str
) -> dict[str, Any]:
    rows = found.complete.iloc[shown]
    labels = [searched.label for searched in found.runs]
    flagged = flags_of_rows(found)
    return {
        "columns": list(names),
        "values": [
            [float(f"{v:.6g}") for v in rows[n].to_numpy(float, na_value=np.nan)] for n in names
        ],
        "hover": [found.told(row) for row in rows.to_dict("records")],
        "run": [labels.index(str(label)) for label in rows[RUN]],
        "runs": labels,
        "flagged": [flagged[i] for i in shown],
        "directions": {n: found.direction(n) for n in names},
        "symbols": [SYMBOLS[shape] for shape in SHAPES],
        "cells": _cells(found, rows),
        "x": a,
        "y": b,
    }


def _cells(found: Findings, rows: pd.DataFrame) -> dict[str, str]:
    """Return place among ``rows`` -> the drawn cell, of the trials that have one."""
    drawn = found.drawn
    keys = zip(rows[RUN].astype(str), rows["number"].astype(int), strict=True)
    return {str(i): drawn[key] for i, key in enumerate(keys) if key in drawn}
