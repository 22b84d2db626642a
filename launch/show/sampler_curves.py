"""The picture of samplers side by side on a table."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from launch.show.style import GREY, finished, log_scales, panels


def sampler_curves(found: pd.DataFrame, measure: str, best: float) -> Figure:
    """Draw the best so far (left: mean and deviation; right: regret) against queries."""
    figure, (left, right) = panels(2, width=11)
    names = list(dict.fromkeys(found["sampler"]))
    for index, name in enumerate(names):
        rows, colour = found[found["sampler"] == name], f"C{index % 10}"
        error = rows["deviation"].fillna(0.0)
        left.plot(rows["queries"], rows["mean"], color=colour, label=name)
        low, high = rows["mean"] - error, rows["mean"] + error
        left.fill_between(rows["queries"], low, high, color=colour, alpha=0.15, linewidth=0)
        positive = rows[rows["regret"] > 0]
        right.plot(positive["queries"], positive["regret"], color=colour, label=name)
    left.axhline(best, color=GREY, linewidth=0.8, linestyle="--")
    left.set(xlabel="queries", ylabel="best so far, mean ± deviation", xscale="log")
    left.set_title(measure, fontsize=10)
    log_scales(right, "queries", "regret: optimum minus mean")
    right.set_title(f"{int(found['seeds'].max())} searches of each sampler", fontsize=10)
    return finished(figure, left, right)
