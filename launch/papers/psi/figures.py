"""The pictures of the reproductions: matplotlib figures of tables that are already made."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from launch.papers.psi import printed as paper
from launch.show.style import GREY, colours, finished, log_scales, panels
from metrics.susceptibility import Drift
from nas.analysis.correlation import Correlation


def untrained(cells: pd.DataFrame) -> Figure:
    """Table 2: left Ψ̂, the paper's and the limit over depth; right how far outputs move at all."""
    figure, (left, right) = panels(2, width=11)
    channels = sorted(cells["channels"].unique())
    for colour, c in zip(colours(len(channels)), channels, strict=True):
        rows = cells[cells["channels"] == c]
        left.plot(rows["depth"], rows["psi"], "o-", color=colour, label=f"C = {c}, r = 1e-4")
        left.plot(rows["depth"], rows["paper"], "x--", color=colour, linewidth=0.8)
        left.plot(rows["depth"], rows["psi_limit"], ":", color=colour, linewidth=2)
    left.plot([], [], "x--", color=GREY, label="the paper")
    left.plot([], [], ":", color=GREY, linewidth=2, label="limit r → 0")
    log_scales(left, "depth D", "Ψ̂")
    left.set_xscale("log", base=2)
    left.set_title("Ψ̂ of untrained nets, and what it tends to as r → 0", fontsize=10)
    radii = np.array([1e-5, 1e-4, 1e-3])
    depths = sorted(cells["depth"].unique())
    for colour, d in zip(colours(len(depths)), depths, strict=True):
        logs = np.log(
            cells[cells["depth"] == d][["frozen_1e-5", "frozen_1e-4", "frozen_1e-3"]]
        ).mean()
        right.plot(radii, np.exp(logs.to_numpy()) * radii, "o-", color=colour, label=f"D = {d}")
    log_scales(right, "radius r", "change of the outputs, ψ·r")
    right.set_title("where this is flat, outputs are saturated: Ψ̂ falls like 1/r", fontsize=10)
    return finished(figure, left, right)


def trained(table: pd.DataFrame) -> Figure:
    """Table 3: Ψ̂ with its interval over depth, the paper's beside it."""
    figure, (axes,) = panels(1)
    channels = sorted(table["channels"].unique())
    for colour, c in zip(colours(len(channels)), channels, strict=True):
        rows = table[table["channels"] == c].sort_values("depth")
        _with_interval(axes, rows, "depth", color=colour, label=f"C = {c}")
        axes.plot(rows["depth"], rows["psi_limit"], ":", color=colour, linewidth=1.5)
    for c in paper.CHANNELS:
        line = [(d, v) for (d, other), v in paper.TABLE_3.items() if other == c]
        axes.plot(*zip(*line, strict=True), "x--", color=GREY, linewidth=0.6)
    axes.plot([], [], ":", color=GREY, label="limit r → 0")
    axes.plot([], [], "x--", color=GREY, label="the paper, C = 32 to 256")
    log_scales(axes, "depth D", "Ψ̂ of trained nets, 95 % interval")
    axes.set_xscale("log", base=2)
    return finished(figure, axes)


def resnets(table: pd.DataFrame) -> Figure:
    """Table 1: Ψ̂ of each ResNet with its interval, the paper's beside it."""
    figure, (axes,) = panels(1)
    _with_interval(axes, table.sort_values("depth"), "depth", color="#2171b5", label="here")
    axes.plot(
        list(paper.TABLE_1), list(paper.TABLE_1.values()), "x--", color=GREY, label="the paper"
    )
    log_scales(axes, "depth of the ResNet", "Ψ̂, 95 % interval")
    axes.set_xscale("linear")
    return finished(figure, axes)


def hidden_states(found: Drift, depth: int) -> Figure:
    """Figure 2: one line an input, and both exponents as straight lines."""
    figure, (axes,) = panels(1)
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
    return finished(figure, axes)


def over_radii(
    table: pd.DataFrame,
    radii: list[float],
    values: np.ndarray,
    names: list[str],
    label: str,
    *,
    log: bool,
) -> Figure:
    """Figures 3 and 6: one line a model over the radius."""
    figure, (axes,) = panels(1)
    order = np.argsort(table["psi"].to_numpy())
    for colour, i in zip(colours(len(order)), order, strict=True):
        axes.plot(radii, values[i], ".-", color=colour, linewidth=1, label=names[i])
    axes.axvline(0.01, color=GREY, linewidth=0.6)
    log_scales(axes, "radius r, RMS", label)
    if not log:
        axes.set_yscale("linear")
    finished(figure)
    axes.legend(frameon=False, fontsize=7, ncols=2)
    return figure


def correlation(
    table: pd.DataFrame, accuracy: np.ndarray, radius: float, found: list[tuple[str, Correlation]]
) -> Figure:
    """Figure 7: post-attack accuracy at one radius against Ψ̂ and the mean estimated radius."""
    figure, several = panels(len(found), width=5.5 * len(found))
    depths = table["depth"].to_numpy(float)
    channels = table.get("channels", pd.Series(np.full(len(depths), 16)))
    for axes, (column, r) in zip(several, found, strict=True):
        axes.scatter(
            table[column],
            accuracy,
            c=np.log2(depths),
            cmap="viridis",
            s=12 * np.sqrt(channels),
            edgecolor="black",
            linewidth=0.5,
        )
        what = {"psi": "Ψ̂", "radius_mean": "mean estimated robustness radius"}[column]
        axes.set_xlabel(f"{what} (colour: depth, area: channels)")
        axes.set_ylabel(f"post-attack accuracy at r = {radius:.3g}")
        printed = f"; the paper {paper.CORRELATION}" if column == "psi" else ""
        axes.set_title(
            f"correlation {r.value:.2f} [{r.low:.2f}, {r.high:.2f}], n = {r.n}{printed}", fontsize=9
        )
    return finished(figure)


def _with_interval(axes: Axes, rows: pd.DataFrame, x: str, **style: Any) -> None:
    below, above = rows["psi"] - rows["psi_low"], rows["psi_high"] - rows["psi"]
    axes.errorbar(rows[x], rows["psi"], yerr=[below, above], fmt="o-", capsize=2, **style)
