"""Figure 10 of Cubuk et al. 2017: hundreds of random nets, their errors over ε, and what follows.

The paper draws the errors. Here the exponents of all of them are told too, and how far the numbers
of universality, which are of small ε, go with robust accuracy at a large one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from launch.papers.cubuk.printed import ACCURATE
from launch.runs.run import Run
from launch.show.columns import aligned
from launch.show.reporter import Reporter
from launch.show.style import GREY, colours, finished, log_scales, panels
from launch.show.view import View
from nas.analysis.correlation import Correlation, spearman
from nas.errors import InputError

POINT = "error_at_"
ROBUST = "pgd_accuracy"
PREDICTORS = {
    "B": "error_exponent",
    "A": "error_amplitude",
    "density of Δ_12 at 0": "logits_12_density",
    "the same, of any scale": "logits_12_nearness",
    "median ε̂ of linear response": "linear_epsilon",
    "Ψ̂": "psi",
    "clean accuracy": "clean_accuracy",
}
"""What may go with robust accuracy -> its score; of any scale: times the median of Δ_12."""
SCORES = (*PREDICTORS.values(), ROBUST, "error_line", "logits_12_exponent")
KINDS = ("dense", "conv")


def figure_10(runs: Sequence[Run], report: Reporter) -> View:
    """Return the nets of a search, their exponents, and what goes with robust accuracy.

    Raises:
        InputError: fewer than two complete trials above the paper's clean accuracy.
    """
    run = runs[0]
    table = run.table()
    every = table[table["status"] == "complete"]
    shown = every[every["clean_accuracy"] > ACCURATE]
    if len(shown) < 2:
        raise InputError(
            f"expected nets above {ACCURATE:.0%} clean accuracy in {run.path}, got {len(shown)} of "
            f"{len(every)} complete trials"
        )
    names = [str(name) for name in table if str(name).startswith(POINT)]
    points = {float(name[len(POINT) :]): name for name in names}
    lines = [
        f"{len(every)} nets, {len(shown)} of them above {ACCURATE:.0%} clean accuracy, which the "
        "rest is of.",
        "",
        *_exponents(shown),
        "",
        *_correlations(shown),
    ]
    figure, axes = panels(3, width=16)
    _errors(axes[0], shown, points)
    _histogram(axes[1], shown)
    _scatter(axes[2], shown)
    return View(every.reset_index(drop=True), lines, finished(figure, *axes))


def groups(shown: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return all nets, and those of each kind that there is."""
    apart = {kind: shown[shown["kind"] == kind] for kind in KINDS}
    return {"all": shown, **{kind: rows for kind, rows in apart.items() if len(rows)}}


def _exponents(shown: pd.DataFrame) -> list[str]:
    rows: dict[str, list[str]] = {}
    for name, nets in groups(shown).items():
        b = nets["error_exponent"].dropna()
        low, middle, high = (float(b.quantile(q)) for q in (0.05, 0.5, 0.95))
        line = nets["error_line"].dropna()
        inside = (nets["error_exponent_low"] <= 1) & (nets["error_exponent_high"] >= 1)
        tail = nets["logits_12_exponent"].dropna()
        rows[name] = [
            f"{len(b)} of {len(nets)}",
            f"{middle:.2f}",
            f"{low:.2f} to {high:.2f}",
            f"{inside[nets['error_exponent'].notna()].mean():.0%}",
            f"{line.median():.2f}",
            f"{tail.median():+.2f} ({tail.quantile(0.05):+.2f} to {tail.quantile(0.95):+.2f})",
        ]
    heads = ("fitted", "B, median", "5 to 95 %", "interval holds 1", "line, median",
             "Δ_12's exponent")  # fmt: skip
    columns = {"nets": list(rows)}
    columns |= {head: [row[i] for row in rows.values()] for i, head in enumerate(heads)}
    return [
        *aligned(columns, right=heads),
        "The paper: B between 0.9 and 1.3 under FGSM, whatever the net; Δ_12's density begins with "
        "the power 0.",
    ]


def robust_correlations(nets: pd.DataFrame) -> Mapping[str, Correlation]:
    """Return Spearman's correlation of each predictor with robust accuracy, over these nets."""
    return {name: spearman(nets[score], nets[ROBUST]) for name, score in PREDICTORS.items()}


def _correlations(shown: pd.DataFrame) -> list[str]:
    every = {name: robust_correlations(nets) for name, nets in groups(shown).items()}
    columns = {"with PGD accuracy": list(PREDICTORS)}
    for name, found in every.items():
        counts = {each.n for each in found.values()}
        of = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
        columns[f"{name} ({of} nets)"] = [_text(each) for each in found.values()]
    spread = shown[ROBUST]
    return [
        *aligned(columns),
        "Spearman's rank correlations with 95 % intervals, which take the nets for independent "
        f"draws; PGD accuracy is {spread.min():.3f} to {spread.max():.3f}.",
    ]


def _text(found: Correlation) -> str:
    if np.isnan(found.value):
        return "n/a"
    return f"{found.value:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def _errors(axes: Axes, shown: pd.DataFrame, points: Mapping[float, str]) -> None:
    epsilons = np.array(list(points))
    for colour, (kind, nets) in zip(colours(len(KINDS)), _kinds(shown), strict=False):
        errors = nets[list(points.values())].to_numpy(float).T
        axes.plot(epsilons, np.where(errors > 0, errors, np.nan), color=colour, linewidth=0.4,
                  alpha=0.5)  # fmt: skip
        axes.plot([], [], color=colour, label=f"{kind}, {len(nets)} nets")
    middle = float(shown["error_amplitude"].median())
    axes.plot(epsilons, (middle * epsilons).clip(max=1), "--", color="black", label="ε to the 1")
    log_scales(axes, "ε, pixels of [0, 1]", "adversarial error, FGSM")


def _kinds(shown: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    return [(name, nets) for name, nets in groups(shown).items() if name in KINDS]


def _histogram(axes: Axes, shown: pd.DataFrame) -> None:
    b = shown["error_exponent"].dropna()
    bins = np.linspace(float(b.quantile(0.01)), float(b.quantile(0.99)), 25)
    several = [nets["error_exponent"].dropna() for _, nets in _kinds(shown)]
    names = [kind for kind, _ in _kinds(shown)]
    axes.hist(several, bins=bins.tolist(), stacked=True, color=colours(len(KINDS))[: len(several)],
              label=names)  # fmt: skip
    axes.axvline(1, color=GREY, linewidth=1)
    axes.set(xlabel="exponent B", ylabel="nets")


def _scatter(axes: Axes, shown: pd.DataFrame) -> None:
    for colour, (kind, nets) in zip(colours(len(KINDS)), _kinds(shown), strict=False):
        axes.plot(nets["error_amplitude"], 100 * nets[ROBUST], ".", color=colour, label=kind)
    axes.set(xscale="log", xlabel="A", ylabel="PGD accuracy, %")
