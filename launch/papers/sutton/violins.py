"""The paradox in one picture: what the attack does, what noise does, and how small attacks are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from launch.papers.sutton.measured import Measured
from launch.show.style import GREY, colours, finished, panels


def paradox(found: Sequence[Measured], deltas: Sequence[float]) -> Figure:
    """Return shares over problems for the attack and every δ, and the sizes of the attacks."""
    figure, (left, right) = panels(2, width=13)
    groups = {"attack": [100 * row.adversarial.value for row in found]}
    groups |= {f"noise, δ={d:g}": [100 * row.random[d].value for row in found] for d in deltas}
    violins(left, groups, "images broken, % (one dot a problem)")
    left.set_ylim(-3, 103)
    sizes = {row.problem: list(row.sizes) for row in found}
    violins(right, sizes, "L2 length of the smallest attack", dots=False)
    return finished(figure)


def violins(axes: Axes, groups: dict[str, list[float]], label: str, *, dots: bool = True) -> None:
    """Draw one violin a group where it has a spread, its values as dots, its median as a line."""
    for place, (colour, values) in enumerate(
        zip(colours(len(groups)), groups.values(), strict=True)
    ):
        known = np.array([v for v in values if not math.isnan(v)])
        if len(known) > 1 and np.ptp(known) > 0:
            body = axes.violinplot(known, [place], widths=0.8, showextrema=False)["bodies"][0]  # type: ignore[index]
            body.set(facecolor=colour, alpha=0.35)
        if dots:
            spread = np.linspace(-0.12, 0.12, len(known))
            axes.plot(place + spread, known, "o", color=colour, markersize=4)
        if len(known):
            middle = float(np.median(known))
            axes.plot([place - 0.3, place + 0.3], [middle] * 2, color=GREY, linewidth=1.5)
    long = max(map(len, groups)) > 14
    axes.set_xticks(
        range(len(groups)),
        list(groups),
        rotation=30 if long else 0,
        ha="right" if long else "center",
        fontsize=7 if long else 9,
    )
    axes.set_ylabel(label)
