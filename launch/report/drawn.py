"""A plot as inline SVG, whose colours come from the page's style sheet and follow dark mode.

Text stays text, so that it can be searched and is sharp in print. Every mark with a hover text
has it as its ``<title>``, which browsers without scripts show as a tooltip.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from launch.report.plots import COLOURS, DASHES, SHAPES, Axis, Plot, Series
from launch.report.scales import Scale, shown, span, ticks, written

WIDTH = 640
RIGHT, TOP, BOTTOM = 14, 12, 46
LETTER = 6.4  # pixels of a letter at 12 px, about
LONGEST = 26  # letters of a category that are shown
TITLES = 600  # marks of a series that carry a tooltip


def svg_of(plot: Plot, title: str, description: str = "") -> str:
    """Return a plot as an ``<svg>`` element with a title and a description for screen readers."""
    names = [s.name for s in plot.series if s.legend and s.name]
    legend, rows = _legend([s for s in plot.series if s.legend and s.name]) if names else ("", 0)
    top = TOP + 20 * rows
    height = plot.height + 20 * rows
    x_low, x_high = span(_values(plot, "x"), plot.x)
    y_low, y_high = span(_values(plot, "y"), plot.y)
    if plot.y.categories:
        y_low, y_high = y_high, y_low  # the first stands at the top
    y = Scale(y_low, y_high, height - BOTTOM, top, plot.y.log)
    marks = _tick_marks(plot.y, min(y_low, y_high), max(y_low, y_high))
    left = 34 + LETTER * max((len(text) for _, text in marks), default=3)
    x = Scale(x_low, x_high, left, WIDTH - RIGHT, plot.x.log)
    parts = [
        f'<svg class="plot" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'xmlns="http://www.w3.org/2000/svg">',
        f"<title>{text_of(title)}</title>",
        f"<desc>{text_of(description)}</desc>" if description else "",
        legend,
        *_axis_y(plot.y, y, left, marks),
        *_axis_x(plot.x, x, x_low, x_high, height, left),
    ]
    for series in plot.series:
        parts += _series(series, plot, x, y)
    return "".join([*parts, "</svg>"])


def _values(plot: Plot, name: str) -> list[float | int | None]:
    found: list[float | int | None] = []
    along = "x" if plot.horizontal else "y"
    for series in plot.series:
        found += getattr(series, name)
        if name == along:
            found += [*series.low, *series.high]
            if series.kind == "bars":
                found.append(0)
    return found


def _tick_marks(axis: Axis, low: float, high: float, count: int = 6) -> list[tuple[float, str]]:
    if axis.categories:
        return [(float(i), clipped(name)) for i, name in enumerate(axis.categories)]
    places = ticks(low, high, log=axis.log, count=count)
    return [(value, written(value, percent=axis.percent)) for value in places]


def _axis_y(axis: Axis, y: Scale, left: float, marks: Sequence[tuple[float, str]]) -> list[str]:
    parts = []
    for value, text in marks:
        at = y(value)
        if not axis.categories:
            parts.append(
                f'<line class="grid" x1="{left:.1f}" x2="{WIDTH - RIGHT}" '
                f'y1="{at:.1f}" y2="{at:.1f}"/>'
            )
        parts.append(
            f'<text class="tick" text-anchor="end" x="{left - 8:.1f}" y="{at + 4:.1f}">'
            f"{text_of(text)}</text>"
        )
    middle = (y.begin + y.end) / 2
    parts.append(
        f'<text class="axis" text-anchor="middle" transform="translate(13 {middle:.1f}) '
        f'rotate(-90)">{text_of(clipped(axis.title, 46))}</text>'
    )
    return parts


def _axis_x(axis: Axis, x: Scale, low: float, high: float, height: int, left: float) -> list[str]:
    bottom = height - BOTTOM
    parts = [
        f'<line class="base" x1="{left:.1f}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>'
    ]
    marks = _tick_marks(axis, low, high, 7)
    room = (WIDTH - RIGHT - left) / max(len(marks), 1)
    widest = max((len(text) for _, text in marks), default=0) * LETTER
    every = max(1, math.ceil(14 / room)) if axis.categories else 1
    letters = max(3, int(room * 1.0 / LETTER) - 1)
    for place, (value, text) in enumerate(marks):
        if place % every:
            continue
        at = x(value)
        shown_text = clipped(text, letters) if axis.categories and widest > room else text
        full = f"<title>{text_of(text)}</title>" if shown_text != text else ""
        parts.append(
            f'<line class="base" x1="{at:.1f}" x2="{at:.1f}" y1="{bottom}" y2="{bottom + 4}"/>'
            f'<text class="tick" text-anchor="middle" x="{at:.1f}" y="{bottom + 18}">'
            f"{text_of(shown_text)}{full}</text>"
        )
    parts.append(
        f'<text class="axis" text-anchor="middle" x="{(left + WIDTH - RIGHT) / 2:.1f}" '
        f'y="{height - 6}">{text_of(clipped(axis.title, 90))}</text>'
    )
    return parts


def _series(series: Series, plot: Plot, x: Scale, y: Scale) -> list[str]:
    colour = f"s{series.style % COLOURS}"
    faint = " faint" if series.faint else ""
    there = [
        (x(float(a)), y(float(b)), i)
        if a is not None and b is not None and shown(a, plot.x) and shown(b, plot.y)
        else None
        for i, (a, b) in enumerate(zip(series.x, series.y, strict=True))
    ]
    parts = [f'<g class="{colour}{faint}">']
    if series.kind == "bars":
        parts += _bars(series, there, plot, x, y)
    elif series.kind == "points":
        shape = SHAPES[series.style % len(SHAPES)]
        hollow = " hollow" if series.hollow else ""
        few = len(there) <= TITLES
        for spot in there:
            if spot is not None:
                told = series.hover[spot[2]] if series.hover and few else ""
                parts.append(mark(shape, spot[0], spot[1], series.size, hollow, told))
    else:
        parts.append(_path(series, there))
    parts += _intervals(series, there, plot, x, y)
    return [*parts, "</g>"]


def _path(series: Series, there: Sequence[tuple[float, float, int] | None]) -> str:
    steps, before = [], None
    for spot in there:
        if spot is None:
            before = None
            continue
        a, b, _ = spot
        if before is None:
            steps.append(f"M{a:.1f} {b:.1f}")
        elif series.kind == "steps":
            steps.append(f"H{a:.1f}V{b:.1f}")
        else:
            steps.append(f"L{a:.1f} {b:.1f}")
        before = spot
    d = "".join(steps)
    dash = DASHES[series.style % len(DASHES)]
    dashed = f' stroke-dasharray="{dash}"' if dash and not series.faint else ""
    area = f'<path class="area" d="{d}Z"/>' if series.area else ""
    return f'{area}<path class="line" d="{d}"{dashed}/>'


def _bars(
    series: Series,
    there: Sequence[tuple[float, float, int] | None],
    plot: Plot,
    x: Scale,
    y: Scale,
) -> list[str]:
    parts = []
    unit = abs(y(1) - y(0)) if plot.horizontal else _narrowest(series, x)
    wide = max(series.fill * unit, 1.0)
    for spot in there:
        if spot is None:
            continue
        a, b, i = spot
        if plot.horizontal:
            zero = x(0.0)
            box = (min(zero, a), b - wide / 2, abs(a - zero), wide)
        else:
            zero = y(0.0)
            box = (a - wide / 2, min(zero, b), wide, abs(b - zero))
        told = f"<title>{text_of(series.hover[i])}</title>" if series.hover else ""
        parts.append(
            f'<rect class="bar" x="{box[0]:.1f}" y="{box[1]:.1f}" width="{box[2]:.1f}" '
            f'height="{box[3]:.1f}">{told}</rect>'
        )
    return parts


def _narrowest(series: Series, x: Scale) -> float:
    places = sorted({x(float(v)) for v in series.x if v is not None})
    gaps = [b - a for a, b in zip(places, places[1:], strict=False)]
    return min(gaps, default=40.0)


def _intervals(
    series: Series,
    there: Sequence[tuple[float, float, int] | None],
    plot: Plot,
    x: Scale,
    y: Scale,
) -> list[str]:
    if not series.low:
        return []
    axis, scale = (plot.x, x) if plot.horizontal else (plot.y, y)
    parts = []
    for spot in there:
        if spot is None:
            continue
        a, b, i = spot
        low, high = series.low[i], series.high[i]
        if low is None or high is None or not (shown(low, axis) and shown(high, axis)):
            continue
        first, last = f"{scale(float(low)):.1f}", f"{scale(float(high)):.1f}"
        if plot.horizontal:
            d = f"M{first} {b:.1f}H{last}M{first} {b - 4:.1f}v8M{last} {b - 4:.1f}v8"
        else:
            d = f"M{a:.1f} {first}V{last}M{a - 3:.1f} {first}h6M{a - 3:.1f} {last}h6"
        parts.append(f'<path class="interval" d="{d}"/>')
    return parts


def mark(shape: str, x: float, y: float, size: float, extra: str = "", told: str = "") -> str:
    """Return a mark of a shape around a point; ``told`` is its tooltip."""
    r = size / 2
    title = f"<title>{text_of(told)}</title>" if told else ""
    if shape == "circle":
        return f'<circle class="mark{extra}" cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}">{title}</circle>'
    corners = {
        "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        "triangle": [(0, -1.15), (1.1, 0.85), (-1.1, 0.85)],
        "diamond": [(0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)],
        "star": [
            (math.sin(k * math.pi / 5) * s, -math.cos(k * math.pi / 5) * s)
            for k in range(10)
            for s in [1.4 if k % 2 == 0 else 0.58]
        ],
    }.get(shape)
    if corners is None:
        left, wide = f"{x - r:.1f}", f"{size:.1f}"
        d = f"M{left} {y - r:.1f}l{wide} {wide}M{left} {y + r:.1f}l{wide} -{wide}"
        return f'<path class="mark stroke" d="{d}">{title}</path>'
    d = "M" + "L".join(f"{x + r * a:.1f} {y + r * b:.1f}" for a, b in corners) + "Z"
    return f'<path class="mark{extra}" d="{d}">{title}</path>'


def _legend(series: Sequence[Series]) -> tuple[str, int]:
    """Return the names beside their marks, in rows, and how many rows those are."""
    parts, x, row = [], 40.0, 1
    for one in series:
        name = clipped(one.name, 40)
        wide = 30 + LETTER * len(name) + 14
        if x + wide > WIDTH and x > 40:
            x, row = 40.0, row + 1
        y = 20 * row - 8
        colour = f"s{one.style % COLOURS}{' faint' if one.faint else ''}"
        if one.kind in ("line", "steps"):
            dash = DASHES[one.style % len(DASHES)]
            dashed = f' stroke-dasharray="{dash}"' if dash and not one.faint else ""
            sign = f'<path class="line" d="M{x:.1f} {y}h24"{dashed}/>'
        elif one.kind == "bars":
            sign = f'<rect class="bar" x="{x + 6:.1f}" y="{y - 5}" width="12" height="10"/>'
        else:
            hollow = " hollow" if one.hollow else ""
            sign = mark(SHAPES[one.style % len(SHAPES)], x + 12, y, max(one.size, 7), hollow)
        parts.append(
            f'<g class="{colour}">{sign}</g><text class="tick" x="{x + 30:.1f}" y="{y + 4}">'
            f"{text_of(name)}</text>"
        )
        x += wide
    return "".join(parts), row


def clipped(text: str, most: int = LONGEST) -> str:
    """Return a text of at most so many letters, the last of which says that there are more."""
    return text if len(text) <= most else text[: most - 1] + "…"


def text_of(text: str) -> str:
    """Return a text that is only text in SVG; control characters have no place in it."""
    clean = "".join(c if c.isprintable() or c == "\n" else " " for c in text)
    return html.escape(clean, quote=True)
