"""What a chart of the report shows, as values: marks on axes, nothing of how they are drawn.

One plot is drawn twice from the same values: by ``drawn.py`` as SVG, for print and for a browser
without scripts, and by ``figures.py`` as a plotly figure that one can hover.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Number = float | int | None
Kind = Literal["points", "line", "steps", "bars"]

SHAPES = ("circle", "square", "triangle", "diamond", "cross", "star")
"""Marks by number, so that runs are told apart without colour."""

DASHES = ("", "7 4", "2 3", "9 3 2 3")
"""Lines by number, as SVG has them."""

COLOURS = 6
"""How many colours the style sheet names: ``--c0`` and on."""


@dataclass(frozen=True)
class Series:
    """Numbers that belong together under one name.

    Attributes:
        name: in the legend.
        x: of every mark; a None breaks a line. Of bars the value, on a ``categories`` axis the
            number of the category.
        y: likewise.
        kind: how they are drawn. ``steps`` holds a value until the next one.
        style: which colour, shape and dash.
        hover: a text for every mark, or none; lines are split by a line feed.
        low: ends of intervals along ``y`` (along ``x`` for bars), or none.
        high: likewise.
        faint: whether it stands behind the others.
        hollow: whether marks are outlines.
        size: of a mark, in pixels across.
        legend: whether the name stands in the legend.
        area: whether what lies under a line, which begins and ends at 0, is filled.
        fill: bars: share of the room of a bar in [0, 1].
    """

    name: str
    x: Sequence[Number]
    y: Sequence[Number]
    kind: Kind = "points"
    style: int = 0
    hover: Sequence[str] = ()
    low: Sequence[Number] = ()
    high: Sequence[Number] = ()
    faint: bool = False
    hollow: bool = False
    size: float = 7.0
    legend: bool = True
    area: bool = False
    fill: float = 0.62


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        title: what is measured, with its unit.
        log: whether its scale is logarithmic; values that are not positive are then left out.
        categories: names of places 0, 1, 2, ... instead of a scale.
        low: the smallest value shown, by default of the data.
        high: the largest.
        percent: whether values in [0, 1] are shown as percent.
    """

    title: str
    log: bool = False
    categories: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    percent: bool = False


@dataclass(frozen=True)
class Plot:
    """Series on two axes; ``horizontal`` bars grow along ``x``, others along ``y``."""

    series: tuple[Series, ...]
    x: Axis
    y: Axis
    horizontal: bool = False
    height: int = 340
