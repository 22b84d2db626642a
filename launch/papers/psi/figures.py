"""The pictures of the reproductions: matplotlib figures of tables that are already made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from launch.papers.psi import printed as paper

if TYPE_CHECKING:
    from launch.papers.psi.trained import Trained
    from metrics.susceptibility import Drift
    from nas.analysis.correlations import Correlation
    from nas.analysis.trends import ChildStatistics

GREY = "#888888"


def untrained(cells: pd.DataFrame) -> Figure:
    """Table 2: left Ψ̂, the paper's and the limit over depth; right how far outputs move at all."""
    figure, (left, right) = _panels(2, width=11)
    channels = sorted(cells["channels"].unique())
    for colour, c in zip(_colours(len(channels)), channels, strict=True):
        rows = cells[cells["channels"] == c]
        left.plot(rows["depth"], rows["psi"], "o-", color=colour, label=f"C = {c}, r = 1e-4")
        left.plot(rows["depth"], rows["paper"], "x--", color=colour, linewidth=0.8)
        left.plot(rows["depth"], rows["psi_limit"], ":", color=colour, linewidth=2)
    left.plot([], [], "x--", color=GREY, label="the paper")
    left.plot([], [], ":", color=GREY, linewidth=2, label="limit r → 0")
    _log(left, "depth D", "Ψ̂")
    left.set_xscale("log", base=2)
    left.set_title("Ψ̂ of untrained nets, and what it tends to as r → 0", fontsize=10)
    radii = np.array([1e-5, 1e-4, 1e-3])
    depths = sorted(cells["depth"].unique())
    for colour, d in zip(_colours(len(depths)), depths, strict=True):
        logs = np.log(
            cells[cells["depth"] == d][["frozen_1e-5", "frozen_1e-4", "frozen_1e-3"]]
        ).mean()
        right.plot(radii, np.exp(logs.to_numpy()) * radii, "o-", color=colour, label=f"D = {d}")
    _log(right, "radius r", "change of the outputs, ψ·r")
    right.set_title("where this is flat, outputs are saturated: Ψ̂ falls like 1/r", fontsize=10)
    return _done(figure, left, right)


def trained(table: pd.DataFrame) -> Figure:
    """Table 3: Ψ̂ with its interval over depth, the paper's beside it."""
    figure, (axes,) = _panels(1)
    channels = sorted(table["channels"].unique())
    for colour, c in zip(_colours(len(channels)), channels, strict=True):
        rows = table[table["channels"] == c].sort_values("depth")
        _with_interval(axes, rows, "depth", color=colour, label=f"C = {c}")
        axes.plot(rows["depth"], rows["psi_limit"], ":", color=colour, linewidth=1.5)
    for c in paper.CHANNELS:
        line = [(d, v) for (d, other), v in paper.TABLE_3.items() if other == c]
        axes.plot(*zip(*line, strict=True), "x--", color=GREY, linewidth=0.6)
    axes.plot([], [], ":", color=GREY, label="limit r → 0")
    axes.plot([], [], "x--", color=GREY, label="the paper, C = 32 to 256")
    _log(axes, "depth D", "Ψ̂ of trained nets, 95 % interval")
    axes.set_xscale("log", base=2)
    return _done(figure, axes)


def resnets(table: pd.DataFrame) -> Figure:
    """Table 1: Ψ̂ of each ResNet with its interval, the paper's beside it."""
    figure, (axes,) = _panels(1)
    _with_interval(axes, table.sort_values("depth"), "depth", color="#2171b5", label="here")
    axes.plot(
        list(paper.TABLE_1), list(paper.TABLE_1.values()), "x--", color=GREY, label="the paper"
    )
    _log(axes, "depth of the ResNet", "Ψ̂, 95 % interval")
    axes.set_xscale("linear")
    return _done(figure, axes)


def hidden_states(found: Drift, depth: int) -> Figure:
    """Figure 2: one line an input, and both exponents as straight lines."""
    figure, (axes,) = _panels(1)
    axes.plot(found.layers, found.distance.numpy(), color="#6baed6", linewidth=0.5)
    first = float(np.exp(np.log(found.distance[0].numpy()).mean()))
    layers = np.array(found.layers)
    axes.plot(layers, first * np.array(found.growth), "o-", color="#08306b", label="geometric mean")
    for rate, style, name in (
        (found.lyapunov, "--", "λ, by the output"),
        (found.slope, ":", "slope before the head"),
    ):
        label = f"{name}: {rate:.3f}"
        axes.plot(layers, first * np.exp(rate * layers), style, color=GREY, label=label)
    axes.set_xticks(layers, found.states, rotation=45, ha="right")
    axes.set_yscale("log")
    axes.set_ylabel("drift of the hidden state, RMS")
    axes.set_title(f"{found.distance.shape[1]} inputs through ResNet-{depth}", fontsize=10)
    return _done(figure, axes)


def over_radii(
    trained: Trained, values: np.ndarray, names: list[str], label: str, *, log: bool
) -> Figure:
    """Figures 3 and 6: one line a model over the radius."""
    figure, (axes,) = _panels(1)
    order = np.argsort(trained.table["psi"].to_numpy())
    for colour, i in zip(_colours(len(order)), order, strict=True):
        axes.plot(trained.radii, values[i], ".-", color=colour, linewidth=1, label=names[i])
    axes.axvline(0.01, color=GREY, linewidth=0.6)
    _log(axes, "radius r, RMS", label)
    if not log:
        axes.set_yscale("linear")
    _done(figure)
    axes.legend(frameon=False, fontsize=7, ncols=2)
    return figure


def correlation(trained: Trained, index: int, found: list[tuple[str, Correlation]]) -> Figure:
    """Figure 7: post-attack accuracy at one radius against Ψ̂ and the mean estimated radius."""
    figure, panels = _panels(len(found), width=5.5 * len(found))
    depths = trained.table["depth"].to_numpy(float)
    channels = trained.table.get("channels", pd.Series(np.full(len(depths), 16)))
    for axes, (column, r) in zip(panels, found, strict=True):
        axes.scatter(
            trained.table[column],
            trained.accuracy_at[:, index],
            c=np.log2(depths),
            cmap="viridis",
            s=12 * np.sqrt(channels),
            edgecolor="black",
            linewidth=0.5,
        )
        what = {"psi": "Ψ̂", "radius_mean": "mean estimated robustness radius"}[column]
        axes.set_xlabel(f"{what} (colour: depth, area: channels)")
        axes.set_ylabel(f"post-attack accuracy at r = {trained.radii[index]:.3g}")
        printed = f"; the paper {paper.CORRELATION}" if column == "psi" else ""
        axes.set_title(
            f"correlation {r.value:.2f} [{r.low:.2f}, {r.high:.2f}], n = {r.n}{printed}", fontsize=9
        )
    return _done(figure)


def children(found: ChildStatistics, names: Mapping[str, str]) -> Figure:
    """Figure 9 of Cubuk et al.: a point a child, running averages; right the accurate children."""
    adversarial = f"{names['adversarial_accuracy']}, %"
    among = f"clean accuracy {'≥' if found.median else '>'} {100 * found.above:.4g} %"
    trends = [(f"{names['clean_accuracy']}, %", 100, found.by_clean)]
    if found.by_parameters is not None:
        trends.insert(0, (names["parameters"], 1, found.by_parameters))
    figure, [*panels, right] = _panels(len(trends) + 1, width=4.8 * (len(trends) + 1))
    area = float(np.clip(4000 / found.n, 2, 25))
    for axes, (name, unit, trend) in zip(panels, trends, strict=True):
        accurate = np.isin(trend.rows, found.accurate)
        for mask, colour in ((~accurate, "#9ecae1"), (accurate, "#2171b5")):
            x, y = unit * trend.x[mask], 100 * trend.y[mask]
            axes.scatter(x, y, s=area, color=colour, linewidth=0)
        axes.scatter([], [], s=25, color="#2171b5", label=among)
        label = f"running average over {trend.window} children"
        axes.plot(unit * trend.x, 100 * trend.average, color="#d94801", label=label)
        r = trend.correlation
        axes.set(xlabel=name, ylabel=adversarial)
        axes.set_title(f"rank correlation {r.value:.2f}, n = {r.n}", fontsize=10)
    sized = found.by_parameters
    if sized is not None and 0 < 20 * sized.x[0] < sized.x[-1]:
        panels[0].set_xscale("log")
    bins = int(np.clip(np.sqrt(len(found.accuracies)), 5, 40))
    right.hist(100 * found.accuracies, bins=bins, color="#2171b5")
    right.set(xlabel=adversarial, ylabel=f"children of {among}")
    right.set_title(
        f"n = {len(found.accuracies)}, range {100 * found.range:.1f} points, "
        f"sd {100 * found.deviation:.1f} points",
        fontsize=10,
    )
    return _done(figure, *panels)


# ------------------------------------------------------------------------------------------- parts


def table_search(found: pd.DataFrame, measure: str, best: float) -> Figure:
    """Draw the best so far (left: mean and deviation; right: regret) against queries."""
    figure, (left, right) = _panels(2, width=11)
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
    _log(right, "queries", "regret: optimum minus mean")
    right.set_title(f"{int(found['seeds'].max())} searches of each sampler", fontsize=10)
    return _done(figure, left, right)


def _panels(count: int, width: float = 6.5) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, 4.4), layout="constrained")  # no pyplot: no display, no state
    return figure, [figure.add_subplot(1, count, i + 1) for i in range(count)]


def _done(figure: Figure, *with_legend: Axes) -> Figure:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    for axes in with_legend:
        axes.legend(frameon=False, fontsize=8)
    return figure


def _log(axes: Axes, x: str, y: str) -> None:
    axes.set(xscale="log", yscale="log", xlabel=x, ylabel=y)


def _with_interval(axes: Axes, rows: pd.DataFrame, x: str, **style: Any) -> None:
    below, above = rows["psi"] - rows["psi_low"], rows["psi_high"] - rows["psi"]
    axes.errorbar(rows[x], rows["psi"], yerr=[below, above], fmt="o-", capsize=2, **style)


def _colours(count: int) -> list[Any]:
    return list(colormaps["viridis"](np.linspace(0, 0.9, count)))
