"""How all pictures look: axes side by side, no frames, one scale of colours."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

GREY = "#888888"


def panels(count: int, width: float = 6.5) -> tuple[Figure, list[Axes]]:
    """Return a figure of so many axes side by side, ``width`` inches in all."""
    figure = Figure(figsize=(width, 4.4), layout="constrained")  # no pyplot: no display, no state
    return figure, [figure.add_subplot(1, count, i + 1) for i in range(count)]


def finished(figure: Figure, *with_legend: Axes) -> Figure:
    """Return the figure without superfluous lines, with legends where they are asked for."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    for axes in with_legend:
        axes.legend(frameon=False, fontsize=8)
    return figure


def log_scales(axes: Axes, x: str, y: str) -> None:
    """Name both axes and make them logarithmic."""
    axes.set(xscale="log", yscale="log", xlabel=x, ylabel=y)


def colours(count: int) -> list[Any]:
    """Return so many colours in an order that one can see."""
    return list(colormaps["viridis"](np.linspace(0, 0.9, count)))
