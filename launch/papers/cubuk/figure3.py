"""Figure 3 of Cubuk et al. 2017: the linear response of logits, and the epsilon it predicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes

from launch.papers.cubuk.densities import Array
from launch.papers.cubuk.nets import Net, first, nets
from launch.papers.cubuk.printed import CROSS_FIRST
from launch.runs.run import Run
from launch.show.columns import aligned
from launch.show.reporter import Reporter
from launch.show.style import GREY, colours, finished, log_scales, panels
from launch.show.view import View
from metrics.answers import logits_of
from metrics.universality import compare
from metrics.universality.linear_response import respond

NORMS = {"l2": "L2", "linf": "L infinity"}
DRAWN = "l2"  # along the gradient, as the paper's figure
DECILES = 10
FURTHER, POINTS = 1.5, 60  # of the line of one image: times its epsilon, and where it is looked at
PREDICTIONS = {"predicted": "linear response", "mean_field": "mean field"}


def figure_3(runs: Sequence[Run], report: Reporter, limit: int | None = None) -> View:
    """Return predicted and measured epsilons of every test image, and one image's logits.

    Args:
        runs: one search.
        report: is told of each net.
        limit: at most so many images.
    """
    found = nets(runs[0])
    table = pd.concat([_rows(net, norm, limit, report) for net in found for norm in NORMS])
    line = logits_along(found[-1], table, limit)
    lines = [
        *agreement_lines(table),
        "",
        *decile_lines(table),
        "",
        f"Logits are drawn for image {line.image} of {found[-1].title}, whose epsilon is the "
        f"median of those that break: predicted {line.predicted:.4g}, measured "
        f"{line.measured:.4g} ({NORMS[DRAWN]}).",
    ]
    figure, axes = panels(3, width=16)
    _draw_logits(axes[0], line)
    for panel, (name, title) in zip(axes[1:], PREDICTIONS.items(), strict=True):
        _scatter(panel, table[table["norm"] == DRAWN], name, title)
    return View(table, lines, finished(figure, *axes))


# ------------------------------------------------------------------------------------ every image


def _rows(net: Net, norm: str, limit: int | None, report: Reporter) -> pd.DataFrame:
    """Return one row an image: its epsilons; NaN of an image that is wrong already."""
    kept = net.kept("response", {"norm": norm, "limit": limit}, _Response(net, norm, limit))
    rows = pd.DataFrame(
        {
            "number": net.row.number,
            "net": net.name,
            "training": net.training,
            "norm": norm,
            "image": np.arange(len(kept["measured"])),
            **{name: np.array(values) for name, values in kept.items()},
        }
    )
    broken = broken_of(rows)
    ratio = broken["predicted"] / broken["measured"]
    report.say(
        f"{net.title}, {NORMS[norm]}: {len(broken)} of {len(rows)} images break, "
        f"median of predicted over measured {ratio.median():.3f}"
    )
    return rows


@dataclass(frozen=True)
class _Response:
    net: Net
    norm: str
    limit: int | None

    def __call__(self) -> dict[str, Any]:
        x, y = first(self.net.images("test"), self.limit)
        found = compare(self.net.model(), x, y, norm=self.norm)
        return {
            "predicted": found.predicted.tolist(),
            "measured": found.measured.tolist(),
            "mean_field": found.response.mean_field.tolist(),
            "predicted_rank": found.response.first.tolist(),
            "first_rank": found.first_rank.tolist(),
        }


def broken_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of images whose answer changed, in the order of their epsilon."""
    found: pd.DataFrame = rows[np.isfinite(rows["measured"])]
    return found.sort_values("measured", kind="stable")


def decile_medians(rows: pd.DataFrame, prediction: str) -> list[float]:
    """Return the median of predicted over measured in each tenth of the broken images."""
    broken = broken_of(rows)
    ratio = (broken[prediction] / broken["measured"]).to_numpy()
    return [float(np.median(part)) if len(part) else np.nan
            for part in np.array_split(ratio, DECILES)]  # fmt: skip


def agreement_lines(table: pd.DataFrame) -> list[str]:
    """Return one line a net, norm and prediction: how near it is to what was measured."""
    rows = []
    for (_, norm), of in table.groupby(["number", "norm"], sort=False):
        broken, count = broken_of(of), int(of["measured"].notna().sum())
        lowest = broken[: math.ceil(len(broken) / DECILES)]
        for name, title in PREDICTIONS.items():
            ratio = broken[name] / broken["measured"]
            ranks = broken[name].rank().corr(broken["measured"].rank())
            own = name == "predicted"
            rows.append(
                {
                    "net": f"{of['net'].iloc[0]}, {of['training'].iloc[0]}",
                    "attack": NORMS[str(norm)],
                    "prediction": title,
                    "lowest 1 %": f"{ratio[: math.ceil(len(ratio) / 100)].median():.3f}",
                    "lowest decile": f"{decile_medians(of, name)[0]:.3f}",
                    "all": f"{ratio.median():.3f}",
                    "Spearman": f"{ranks:.3f}",
                    "Δ_12 first": _share(broken["first_rank"] == 2) if own else "",
                    "in the decile": _share(lowest["first_rank"] == 2) if own else "",
                    "as predicted": _share(broken["first_rank"] == broken["predicted_rank"])
                    if own
                    else "",
                    "broken": f"{len(broken)} of {count}" if own else "",
                }
            )
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    right = [name for name in columns if name not in ("net", "attack", "prediction")]
    return [
        *aligned(columns, right=right),
        "lowest 1 %, lowest decile, all: median of predicted over measured ε, of that part of the "
        "broken images that need the least, and of all; Δ_12 first: how many of all, and in the "
        "decile, cross to the class with the second largest logit (the paper: more than "
        f"{100 * CROSS_FIRST:.0f} % of the FGSM attacks below 50/255 that succeed; here as far is "
        "looked); as predicted: how many cross to the class that is predicted.",
    ]


def _share(some: pd.Series) -> str:
    return f"{100 * some.mean():.1f} %" if len(some) else "n/a"


def decile_lines(table: pd.DataFrame) -> list[str]:
    """Return the median ratios in tenths of the measured epsilon, from the smallest."""
    rows = {}
    for (_, norm), of in table.groupby(["number", "norm"], sort=False):
        for name, title in PREDICTIONS.items():
            key = f"{of['net'].iloc[0]}, {NORMS[str(norm)]}, {title}"
            rows[key] = [f"{median:.3f}" for median in decile_medians(of, name)]
    columns = {"predicted over measured, by tenths of the measured ε": list(rows)}
    columns |= {str(i + 1): [medians[i] for medians in rows.values()] for i in range(DECILES)}
    return aligned(columns, right=[str(i + 1) for i in range(DECILES)])


def _scatter(axes: Axes, rows: pd.DataFrame, prediction: str, title: str) -> None:
    numbers = rows["number"].unique()
    for colour, number in zip(colours(len(numbers)), numbers, strict=True):
        broken = broken_of(rows[rows["number"] == number])
        x, y = broken["measured"].to_numpy(), broken[prediction].to_numpy()
        shown = np.isfinite(y) & (x > 0) & (y > 0)
        label = str(broken["net"].iloc[0]) if len(broken) else None
        axes.plot(x[shown], y[shown], ".", color=colour, markersize=1.5, alpha=0.5, label=label)
    some = rows["measured"].replace([0, np.inf], np.nan).dropna()
    if len(some):
        ends = [some.min(), some.max()]
        axes.plot(ends, ends, "--", color=GREY, linewidth=1, label="equal")
    log_scales(axes, f"smallest ε measured, {NORMS[DRAWN]}", f"ε predicted, {title}")


# -------------------------------------------------------------------------------------- one image


@dataclass(frozen=True)
class Line:
    """The logits of one image along the direction of the attack.

    Attributes:
        image: its place among the test images.
        epsilons: ``(k,)``.
        logits: ``(k, classes)``, by rank at the image.
        gamma: ``(classes,)``, their slopes at the image, by rank.
        predicted, measured: epsilons at which the answer changes.
    """

    image: int
    epsilons: Array
    logits: Array
    gamma: Array
    predicted: float
    measured: float

    @property
    def linear(self) -> Array:
        """``(k, classes)``: h_j + ε Γ_j."""
        found: Array = self.logits[0] + self.epsilons[:, None] * self.gamma
        return found


def logits_along(net: Net, table: pd.DataFrame, limit: int | None) -> Line:
    """Return the logits of the image of a net whose smallest epsilon is the median one.

    Of no image that breaks, those of the first one, as far as 1.
    """
    own = table[(table["number"] == net.row.number) & (table["norm"] == DRAWN)]
    broken = broken_of(own)
    row = broken.iloc[len(broken) // 2] if len(broken) else own.iloc[0]
    place = int(row["image"])
    kept = net.kept("line", {"norm": DRAWN, "limit": limit, "image": place},
                    _Line(net, limit, place, float(row["measured"])))  # fmt: skip
    epsilons, logits, gamma = (np.array(kept[name]) for name in ("epsilons", "logits", "gamma"))
    predicted, measured = float(row["predicted"]), float(row["measured"])
    return Line(place, epsilons, logits, gamma, predicted, measured)


@dataclass(frozen=True)
class _Line:
    net: Net
    limit: int | None
    place: int
    measured: float

    def __call__(self) -> dict[str, Any]:
        x, y = first(self.net.images("test"), self.limit)
        x, y = x[self.place : self.place + 1], y[self.place : self.place + 1]
        model = self.net.model()
        found = respond(model, x.detach().clone(), y, DRAWN)
        far = FURTHER * self.measured if np.isfinite(self.measured) else 1.0
        epsilons = torch.linspace(0, far, POINTS, device=x.device)
        along = x.detach() + epsilons[:, None, None, None] * found.direction
        logits = logits_of(model, along.detach()).detach()[:, found.order[0]]
        return {
            "epsilons": epsilons.tolist(),
            "logits": logits.double().tolist(),
            "gamma": found.gamma[0].tolist(),
        }


def _draw_logits(axes: Axes, line: Line) -> None:
    classes = line.logits.shape[1]
    low, high = line.logits.min(), line.logits.max()
    for j, colour in enumerate(colours(classes)):
        label = f"rank {j + 1}" if j < 3 else None
        axes.plot(line.epsilons, line.logits[:, j], color=colour, linewidth=1.2, label=label)
        axes.plot(line.epsilons, line.linear[:, j], "--", color=colour, linewidth=0.8)
    for epsilon, style, label in (
        (line.predicted, "--", "ε predicted"),
        (line.measured, "-", "ε measured"),
    ):
        if np.isfinite(epsilon):
            axes.axvline(epsilon, color=GREY, linestyle=style, linewidth=1, label=label)
    margin = 0.1 * (high - low)
    axes.set(xlabel=f"ε, {NORMS[DRAWN]}", ylabel="logit (dashed: linear response)",
             ylim=(low - margin, high + margin), xlim=(0, line.epsilons[-1]))  # fmt: skip
