"""The picture of trends: a point a model, running averages, and the accurate ones apart."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from launch.show.style import finished, panels
from nas.analysis.trends import TrendStatistics


def trend_panels(found: TrendStatistics, names: Mapping[str, str]) -> Figure:
    """Figure 9 of Cubuk et al.: a point a model, running averages; right the accurate models."""
    adversarial = f"{names['adversarial_accuracy']}, %"
    among = f"clean accuracy {'≥' if found.median else '>'} {100 * found.above:.4g} %"
    trends = [(f"{names['clean_accuracy']}, %", 100, found.by_clean)]
    if found.by_parameters is not None:
        trends.insert(0, (names["parameters"], 1, found.by_parameters))
    figure, [*several, right] = panels(len(trends) + 1, width=4.8 * (len(trends) + 1))
    area = float(np.clip(4000 / found.n, 2, 25))
    for axes, (name, unit, trend) in zip(several, trends, strict=True):
        accurate = np.isin(trend.rows, found.accurate)
        for mask, colour in ((~accurate, "#9ecae1"), (accurate, "#2171b5")):
            x, y = unit * trend.x[mask], 100 * trend.y[mask]
            axes.scatter(x, y, s=area, color=colour, linewidth=0)
        axes.scatter([], [], s=25, color="#2171b5", label=among)
        label = f"running average over {trend.window} models"
        axes.plot(unit * trend.x, 100 * trend.average, color="#d94801", label=label)
        r = trend.correlation
        axes.set(xlabel=name, ylabel=adversarial)
        axes.set_title(f"rank correlation {r.value:.2f}, n = {r.n}", fontsize=10)
    sized = found.by_parameters
    if sized is not None and 0 < 20 * sized.x[0] < sized.x[-1]:
        several[0].set_xscale("log")
    bins = int(np.clip(np.sqrt(len(found.accuracies)), 5, 40))
    right.hist(100 * found.accuracies, bins=bins, color="#2171b5")
    right.set(xlabel=adversarial, ylabel=f"models of {among}")
    right.set_title(
        f"n = {len(found.accuracies)}, range {100 * found.range:.1f} points, "
        f"sd {100 * found.deviation:.1f} points",
        fontsize=10,
    )
    return finished(figure, *several)
