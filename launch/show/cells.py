"""Cells as pictures: graphs from left to right, operations on the edges in colour."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path as Curve
from matplotlib.textpath import TextPath

from launch.show.layout import Place, arrange
from nas.errors import InputError
from nas.files import write_whole
from search_spaces import Architecture, space_of
from search_spaces.graphs import Cell

FORMATS = ("svg", "png")
COLOURS = {
    # of the first word here that a label has; light enough for black text
    "skip": "#e6e6e6",
    "identity": "#e6e6e6",
    "avg": "#fdeaa8",
    "max": "#fbcf9d",
    "sep": "#bfe5c8",
    "dil": "#dccbef",
    "": "#bcd8f2",
}
NODE, LINE = "#ffffff", "#444444"
NODE_HEIGHT, LABEL_HEIGHT, MARGIN = 26.0, 19.0, 12.0  # points
BETWEEN, APART = 36.0, 9.0  # columns, and the boxes of one column
LEAD = 6.0  # an edge is level so far before and behind a column: the length of an arrow


def draw_cell(architecture: Architecture, path: str | Path | None = None) -> Figure:
    """Draw the cell that the network of ``architecture`` repeats.

    Args:
        architecture: of any space that has cells.
        path: where to write the picture too, as SVG or PNG by its suffix.

    Raises:
        InputError: a space without cells, or another suffix.
    """
    suffix = "" if path is None else Path(path).suffix.lower().lstrip(".")
    if path is not None and suffix not in FORMATS:
        raise InputError(f"expected a picture *.svg or *.png, got {str(path)!r}")
    cell = space_of(architecture).cell(architecture)
    if cell is None:
        raise InputError(f"expected a space with a cell to draw, got {architecture.space}")
    figure = figure_of(cell)
    if path is not None:
        metadata = {"Date": None} if suffix == "svg" else None
        with rc_context({"svg.hashsalt": "psinas"}):  # the same cell is the same file
            write_whole(Path(path), partial(figure.savefig, format=suffix, metadata=metadata))
    return figure


def figure_of(cell: Cell) -> Figure:
    """Draw any cell: a box for each node, and for each label of an edge a coloured one on it."""
    return _stacked([_Drawing.of(cell)])


def figure_of_cells(cells: Mapping[str, Cell]) -> Figure:
    """Draw several cells, one below the other, each under its name."""
    return _stacked([_Drawing.of(cell, title) for title, cell in cells.items()])


@dataclass(frozen=True)
class _Drawing:
    """A cell with a place for all that is drawn of it; lengths in points.

    Attributes:
        cell: it.
        title: above it, "" for none.
        places: of the nodes, then of labels and passages of edges.
        chains: the edges, as the places that they pass.
        labels: place -> label of an edge.
    """

    cell: Cell
    title: str
    places: list[Place]
    chains: list[list[int]]
    labels: dict[int, str]

    @classmethod
    def of(cls, cell: Cell, title: str = "") -> _Drawing:
        columns = _columns(cell)
        places = [Place(column, _width(label, 20), NODE_HEIGHT)
                  for label, column in zip(cell.nodes, columns, strict=True)]  # fmt: skip
        chains, labels = [], {}
        for source, target, label in cell.edges:
            chain = [source]
            for column in range(columns[source] + 1, columns[target]):
                chain.append(len(places))
                places.append(Place(column))
            if label:  # beside what reads it
                labels[chain[-1]] = label
                places[chain[-1]] = Place(columns[target] - 1, _width(label, 14), LABEL_HEIGHT)
            chains.append([*chain, target])
        arrange(places, chains, between=BETWEEN, apart=APART)
        return cls(cell, title, places, chains, labels)

    @property
    def x(self) -> tuple[float, float]:
        """The left and right ends."""
        right = max(p.right for p in self.places)
        if self.title:
            right = max(right, _width(self.title, 0))
        return -MARGIN, right + MARGIN

    @property
    def y(self) -> tuple[float, float]:
        """The lower and upper ends."""
        low = min(p.y - p.height / 2 for p in self.places) - MARGIN
        high = max(p.y + p.height / 2 for p in self.places) + MARGIN
        return low, high + (NODE_HEIGHT if self.title else 0)

    @property
    def size(self) -> tuple[float, float]:
        """Width and height."""
        return self.x[1] - self.x[0], self.y[1] - self.y[0]

    def draw(self, axes: Axes) -> None:
        """Draw it on axes whose unit is a point."""
        places = self.places
        for chain in self.chains:
            stops = [n for n, i in enumerate(chain) if places[i].width]
            for start, end in zip(stops, stops[1:], strict=False):
                arrow = end == len(chain) - 1
                _line(axes, [places[i] for i in chain[start : end + 1]], arrow=arrow)
        for i, label in self.labels.items():
            _box(axes, places[i], label, colour=_colour(label), edge="none", size=9)
        for i, label in enumerate(self.cell.nodes):
            _box(axes, places[i], label, colour=NODE, edge="#222222", size=10)
        if self.title:
            axes.text(0, self.y[1] - MARGIN, self.title, va="top", fontsize=10, fontweight="bold")


def _stacked(drawings: Sequence[_Drawing]) -> Figure:
    """Return a figure of cells one below the other, at one scale."""
    width = max(drawing.size[0] for drawing in drawings)
    height = left = sum(drawing.size[1] for drawing in drawings)
    figure = Figure(figsize=(width / 72, height / 72), dpi=150)  # no pyplot
    for drawing in drawings:
        across, down = drawing.size
        left -= down
        place = (0, left / height, across / width, down / height)
        axes = figure.add_axes(place, xlim=drawing.x, ylim=drawing.y)
        axes.set_axis_off()
        drawing.draw(axes)
    return figure


def _columns(cell: Cell) -> list[int]:
    """Return each node's column: behind all it reads, with one between for labels."""
    columns = [0] * len(cell.nodes)
    for target in range(len(columns)):
        for source, end, label in cell.edges:
            if end == target:
                columns[target] = max(columns[target], columns[source] + (2 if label else 1))
    return columns


def _line(axes: Axes, places: list[Place], *, arrow: bool) -> None:
    """Draw from the first place to the last: straight through columns, curved between them."""
    points, codes = [(places[0].x + places[0].width / 2, places[0].y)], [Curve.MOVETO]
    for before, place in zip(places, places[1:], strict=False):
        start, end = before.right + LEAD, place.left - LEAD
        middle = (start + end) / 2
        points += [(start, before.y), (middle, before.y), (middle, place.y), (end, place.y)]
        codes += [Curve.LINETO, *[Curve.CURVE4] * 3]
    tip, y = places[-1].x - places[-1].width / 2, places[-1].y
    line = Curve([*points, (tip, y)], [*codes, Curve.LINETO])
    axes.add_patch(PathPatch(line, fill=False, edgecolor=LINE, linewidth=1))
    if arrow:
        corners = [(tip, y), (tip - LEAD, y + LEAD / 2.4), (tip - LEAD, y - LEAD / 2.4)]
        axes.add_patch(Polygon(corners, facecolor=LINE, edgecolor="none"))


def _box(axes: Axes, place: Place, label: str, *, colour: str, edge: str, size: int) -> None:
    corner = (place.x - place.width / 2, place.y - place.height / 2)
    style = f"round,pad=0,rounding_size={place.height / (2 if edge == 'none' else 4)}"
    axes.add_patch(
        FancyBboxPatch(
            corner, place.width, place.height, boxstyle=style, facecolor=colour, edgecolor=edge
        )
    )
    axes.text(place.x, place.y, _text(label), ha="center", va="center_baseline", fontsize=size)


@cache
def _width(label: str, margin: float) -> float:
    extents = TextPath((0, 0), _text(label), size=10, prop=FontProperties()).get_extents()
    return max(float(extents.width) + margin, NODE_HEIGHT)


def _text(label: str) -> str:
    """Return ``sep_conv_3x3`` as it is written: sep conv 3×3."""
    return re.sub(r"(?<=\d)x(?=\d)", "×", label.replace("_", " "))


def _colour(label: str) -> str:
    return next(colour for word, colour in COLOURS.items() if word in label)
