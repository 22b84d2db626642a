"""How each score is spread over the complete trials."""

from __future__ import annotations

import numpy as np

from launch.report.charts import Chart, chart
from launch.report.findings import RUN, Findings
from launch.report.numbers import is_share
from launch.report.page import Block, Details, Section
from launch.report.plots import Axis, Plot, Series
from nas.types import FloatArray

OPEN, MOST = 2, 10  # charts that are seen at once, and in all


def make(found: Findings) -> Section | None:
    """Return a histogram for each score that varies; None where none does."""
    names = [n for n in found.scores if found.complete[n].nunique() > 1][:MOST]
    if len(found.complete) < 2 or not names:
        return None
    charts = [histogram(found, name, place) for place, name in enumerate(names)]
    blocks: list[Block] = list(charts[:OPEN])
    if len(charts) > OPEN:
        blocks.append(Details(f"{len(charts) - OPEN} more scores", charts[OPEN:]))
    lead = "Every complete trial counts once."
    return Section("distributions", "How scores are spread", lead, blocks)


def bins(values: FloatArray, *, log: bool) -> FloatArray:
    """Return the edges of about √n bins between the smallest and the largest value."""
    count = int(np.clip(np.sqrt(len(values)), 6, 40))
    low, high = float(values.min()), float(values.max())
    if log:
        return np.geomspace(low, high, count + 1)
    return np.linspace(low, high, count + 1)


def histogram(found: Findings, name: str, place: int) -> Chart:
    """Return the chart of a score: bars of one run, outlines of several as shares."""
    every = found.complete[name].to_numpy(float, na_value=np.nan)
    finite = every[np.isfinite(every)]
    log = bool(finite.min() > 0 and finite.max() > 50 * finite.min())
    edges = bins(finite, log=log)
    several = len(found.runs) > 1
    series = []
    for style, searched in enumerate(found.runs):
        own = every[(found.complete[RUN] == searched.label).to_numpy() & np.isfinite(every)]
        if len(own) == 0:
            continue
        counts, _ = np.histogram(own, edges)
        heights = counts / len(own) if several else counts
        x = np.repeat(edges, 2)
        y = np.concatenate([[0], np.repeat(heights, 2), [0]])
        hover = [""] * len(x)
        for i, count in enumerate(counts):
            text = f"{edges[i]:.4g} to {edges[i + 1]:.4g}\n{count:,} of {len(own):,} trials"
            hover[2 * i + 1] = hover[2 * i + 2] = text
        line = Series(
            searched.label,
            x.tolist(),
            y.tolist(),
            "line",
            style,
            hover,
            legend=several,
            area=not several,
        )
        series.append(line)
    median = float(np.median(finite))
    caption = (
        f"{len(finite):,} trials; median {_told(median, name)}, middle half "
        f"{_told(float(np.quantile(finite, 0.25)), name)} to "
        f"{_told(float(np.quantile(finite, 0.75)), name)}."
    )
    plot = Plot(
        tuple(series),
        Axis(name, log=log, percent=is_share(name)),
        Axis("share of trials" if several else "trials", low=0),
        height=230,
    )
    return chart(f"distribution-{place}", name, caption, plot)


def _told(value: float, name: str) -> str:
    return f"{100 * value:.1f} %" if is_share(name) else f"{value:.4g}"
