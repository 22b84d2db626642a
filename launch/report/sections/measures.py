"""Ψ, mean radius and the bracket's ends against robust accuracy: do they say anything of it?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from launch.report.charts import chart
from launch.report.findings import RUN, Findings
from launch.report.page import Block, Details, Section
from launch.report.plots import Axis, Plot, Series
from launch.report.sections.trends import said_correlation, trend_chart
from nas.analysis.correlation import spearman

ENDS = ("psi", "psi_init", "psi_epoch1", "radius_mean", "lower_bound", "upper_bound", "gap")
PARTS = ("bracket", "radius_mean", "minimal")
MOST = 10


def make(found: Findings) -> Section | None:
    """Return rank correlations with robust accuracy; None without such columns."""
    names = measured(found)
    if found.robust is None or not names:
        return None
    y = found.complete[found.robust].to_numpy(float, na_value=np.nan)
    rows = []
    for style, searched in enumerate(found.runs):
        mine = (found.complete[RUN] == searched.label).to_numpy()
        for place, name in enumerate(names):
            x = found.complete[name].to_numpy(float, na_value=np.nan)
            rows.append((style, place, spearman(x[mine], y[mine])))
    several = len(found.runs) > 1
    series = []
    for style, searched in enumerate(found.runs):
        own = [row for row in rows if row[0] == style and not np.isnan(row[2].value)]
        shift = 0.22 * (style - (len(found.runs) - 1) / 2) if several else 0.0
        hover = [f"{names[p]}\n{said_correlation(r)}\nn = {r.n}" for _, p, r in own]
        series.append(
            Series(
                searched.label,
                [r.value for _, _, r in own],
                [p + shift for _, p, _ in own],
                "points",
                style,
                hover,
                [None if np.isnan(r.low) else r.low for _, _, r in own],
                [None if np.isnan(r.high) else r.high for _, _, r in own],
                legend=several,
                size=9,
            )
        )
    if not any(s.x for s in series):
        return None
    plot = Plot(
        tuple(series),
        Axis(f"rank correlation with {found.robust}", low=-1.05, high=1.05),
        Axis("", categories=tuple(names)),
        horizontal=True,
        height=80 + 30 * len(names),
    )
    n = max(row[2].n for row in rows)
    caption = f"Spearman's rank correlation with its 95 % interval, of at most {n:,} trials a run."
    blocks: list[Block] = [
        chart("measures-correlations", "Rank correlation with robust accuracy", caption, plot)
    ]
    trends = [trend_chart(found, x, found.robust, f"measure-{i}") for i, x in enumerate(names[:6])]
    drawn = [one for one in trends if one is not None]
    blocks += drawn[:1]
    if drawn[1:]:
        blocks.append(Details(f"{len(drawn) - 1} more measures", drawn[1:]))
    lead = (
        f"What Ψ, the mean radius and the bracket say of {found.robust}. A small Ψ is meant to go "
        "with a robust net: a correlation near -1 supports it, an interval that holds 0 does not."
    )
    return Section("measures", "Ψ, radius and bracket against robust accuracy", lead, blocks)


def measured(found: Findings) -> Sequence[str]:
    """Return the columns of such measures that vary."""
    return [
        name
        for name in map(str, found.complete.select_dtypes("number").columns)
        if (name in ENDS or name.endswith(ENDS[3:]) or name.startswith(PARTS))
        and not name.endswith(("_low", "_high", "_stderr", "_seconds", "_std"))
        and found.complete[name].nunique() > 1
    ][:MOST]
