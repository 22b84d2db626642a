"""A chart of the report: a picture for print and for a browser without scripts, and a figure.

A section makes one from a :class:`~launch.report.plots.Plot` with :func:`chart`, or from an SVG and
a plotly figure of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from launch.report.drawn import svg_of
from launch.report.figures import figure_of
from launch.report.plots import Plot


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        name: unique on the page, of letters, digits and hyphens.
        title: above it.
        caption: below it: what is seen, of how many, and what was left out.
        svg: an ``<svg>`` element. It is trusted: whoever makes it escapes the texts in it.
        figure: ``{"data": [...], "layout": {...}}`` of plotly's as plain JSON, or None where the
            picture is all. ``var(--c0)`` to ``var(--c5)``, ``var(--ink)``, ``var(--faint)`` are
            colours of the page. Texts are escaped by :func:`launch.report.figures.plotly_text`.
        chooser: rows for a chart whose axes a reader may choose, or None; see ``report.js``.
    """

    name: str
    title: str
    caption: str
    svg: str
    figure: Mapping[str, Any] | None = None
    chooser: Mapping[str, Any] | None = None


def chart(
    name: str,
    title: str,
    caption: str,
    plot: Plot,
    *,
    interactive: bool = True,
    chooser: Mapping[str, Any] | None = None,
) -> Chart:
    """Return the chart of a plot, with a plotly figure where it is ``interactive``."""
    figure = figure_of(plot) if interactive else None
    return Chart(name, title, caption, svg_of(plot, title, caption), figure, chooser)
