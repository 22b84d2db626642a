"""How robust accuracy goes with parameters and with clean accuracy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from launch.report.charts import Chart, chart
from launch.report.findings import RUN, Findings
from launch.report.numbers import is_share
from launch.report.page import Section
from launch.report.plots import Axis, Plot, Series
from launch.report.sampling import few, said
from nas.analysis.correlation import Correlation, spearman
from nas.analysis.trends import default_window, running_average

FEWEST = 3


def make(found: Findings) -> Section | None:
    """Return the trends that the scores allow; None where there are none."""
    pairs = [
        ("parameters", found.robust),
        (found.clean, found.robust),
        ("parameters", found.clean),
    ]
    charts = []
    for place, (x, y) in enumerate(pairs):
        if x is None or y is None or x not in found.complete:
            continue
        drawn = trend_chart(found, x, y, f"trend-{place}")
        if drawn is not None:
            charts.append(drawn)
    if not charts:
        return None
    lead = (
        "Each line is a running average over so many neighbours. Rank correlations (Spearman) "
        "are over trials that a sampler chose: they say what goes together among these, not what "
        "causes what."
    )
    return Section("trends", "Trends", lead, charts)


def window_of(n: int) -> int:
    """Return how many trials a running average is over: √n as elsewhere, of many a 25th; odd."""
    return max(default_window(n), n // 50 * 2 + 1)


def said_correlation(found: Correlation) -> str:
    """Return a rank correlation with its 95 % interval as text."""
    if np.isnan(found.value):
        return "not defined, one of the two is constant"
    ends = "" if np.isnan(found.low) else f" [{found.low:.2f}, {found.high:.2f}]"
    return f"{found.value:.2f}{ends}"


def trend_chart(found: Findings, x: str, y: str, name: str) -> Chart | None:
    """Return a score against another, run by run; None where under three trials have both."""
    a = found.complete[x].to_numpy(float, na_value=np.nan)
    b = found.complete[y].to_numpy(float, na_value=np.nan)
    there = np.isfinite(a) & np.isfinite(b)
    if there.sum() < FEWEST or len(np.unique(a[there])) < 2:
        return None
    values = a[there]
    log = bool(values.min() > 0 and values.max() > 20 * values.min())
    shown = few(int(there.sum()))
    several = len(found.runs) > 1
    labels = found.complete[RUN].to_numpy()
    drawn: NDArray[np.intp] = np.flatnonzero(there)[shown]
    series, texts = [], []
    for style, searched in enumerate(found.runs):
        mine = there & (labels == searched.label)
        if not mine.any():
            continue
        own = f"{searched.label}: " if several else ""
        points = [int(i) for i in drawn if mine[i]]
        hover = (
            [found.told(found.complete.iloc[i].to_dict()) for i in points]
            if len(points) <= 600
            else []
        )
        series.append(
            Series(f"{own}trials", a[points].tolist(), b[points].tolist(), "points", style, hover,
                   faint=not several, hollow=several, size=6)
        )  # fmt: skip
        if mine.sum() >= FEWEST:
            order = np.flatnonzero(mine)
            order = order[np.argsort(a[order], kind="stable")]
            average = running_average(a[order], b[order], window_of(len(order)))
            line = few(len(order), (0, len(order) - 1), most=400)
            series.append(
                Series(
                    f"{own}average of {window_of(len(order)):,}",
                    a[order][line].tolist(),
                    average[line].tolist(),
                    "line",
                    style,
                )
            )
        texts.append(f"{own}{said_correlation(spearman(a[mine], b[mine]))}, n = {mine.sum():,}")
    caption = f"Rank correlation {'; '.join(texts)}. {said(len(drawn), int(there.sum()))}"
    plot = Plot(tuple(series), Axis(x, log=log, percent=is_share(x)), Axis(y, percent=is_share(y)))
    return chart(name, f"{y} against {x}", caption, plot)
