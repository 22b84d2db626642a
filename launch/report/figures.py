"""A plot as a plotly figure: plain JSON, whose colours are names of the page's style sheet.

``report.js`` puts ``var(--c0)`` and its like in their place, light or dark. Names come from users;
plotly reads a little HTML in texts, so these are escaped for it here.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from launch.report.plots import COLOURS, SHAPES, Axis, Number, Plot, Series

SYMBOLS = {
    "circle": "circle",
    "square": "square",
    "triangle": "triangle-up",
    "diamond": "diamond",
    "cross": "x-thin",
    "star": "star",
}
DASHES = ("solid", "dash", "dot", "dashdot")


def figure_of(plot: Plot) -> Mapping[str, Any]:
    """Return ``{"data": [...], "layout": {...}}``."""
    data = [_trace(series, plot) for series in plot.series]
    few = sum(s.legend and bool(s.name) for s in plot.series)
    layout = {
        "xaxis": _axis(plot.x, reverse=False),
        "yaxis": _axis(plot.y, reverse=bool(plot.y.categories)),
        "showlegend": few > 0,
        "height": plot.height + (40 if few else 10),
        "barmode": "overlay",
        "hovermode": "closest",
    }
    return {"data": data, "layout": layout}


def plotly_text(text: str) -> str:
    """Return a text that plotly shows as it is; line feeds break lines."""
    return html.escape(text, quote=False).replace("\n", "<br>")


def _trace(series: Series, plot: Plot) -> dict[str, Any]:
    colour = "var(--faint)" if series.faint else f"var(--c{series.style % COLOURS})"
    trace: dict[str, Any] = {
        "name": plotly_text(series.name),
        "x": _numbers(series.x, plot.x),
        "y": _numbers(series.y, plot.y),
        "showlegend": series.legend and bool(series.name),
    }
    if series.hover:
        trace |= {"hovertext": [plotly_text(text) for text in series.hover], "hoverinfo": "text"}
    if series.kind == "bars":
        trace |= {"type": "bar", "orientation": "h" if plot.horizontal else "v"}
        trace |= {"marker": {"color": colour, "line": {"width": 0}}}
        if plot.x.categories or plot.y.categories:
            trace["width"] = series.fill
    elif series.kind == "points":
        symbol = SYMBOLS[SHAPES[series.style % len(SHAPES)]] + ("-open" if series.hollow else "")
        line = {"width": 1.5 if series.hollow or "thin" in symbol else 0, "color": colour}
        trace |= {"type": "scatter", "mode": "markers"}
        trace["marker"] = {"color": colour, "symbol": symbol, "size": series.size, "line": line}
        if series.faint:
            trace["marker"]["opacity"] = 0.6
    else:
        dash = "solid" if series.faint else DASHES[series.style % len(DASHES)]
        trace |= {"type": "scatter", "mode": "lines", "connectgaps": False}
        trace["line"] = {
            "color": colour,
            "dash": dash,
            "width": 1.5 if series.faint else 2,
            "shape": "hv" if series.kind == "steps" else "linear",
        }
        if series.area:
            trace |= {"fill": "tozeroy", "fillcolor": f"var(--c{series.style % COLOURS}-wash)"}
    if series.low:
        trace["error_x" if plot.horizontal else "error_y"] = _interval(series, plot.horizontal)
    return trace


def _interval(series: Series, along_x: bool) -> dict[str, Any]:
    middle = series.x if along_x else series.y
    up = [_gap(high, at) for high, at in zip(series.high, middle, strict=True)]
    down = [_gap(at, low) for low, at in zip(series.low, middle, strict=True)]
    return {
        "type": "data",
        "symmetric": False,
        "array": up,
        "arrayminus": down,
        "color": "var(--ink)",
        "thickness": 1.2,
        "width": 4,
    }


def _gap(high: Number, low: Number) -> float | None:
    if high is None or low is None or not (math.isfinite(high) and math.isfinite(low)):
        return None
    return max(float(high) - float(low), 0.0)


def _axis(axis: Axis, *, reverse: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"title": {"text": plotly_text(axis.title)}}
    if axis.log:
        found |= {"type": "log", "dtick": 1}
    if axis.categories:
        texts = [_short(name) for name in axis.categories]
        found |= {"tickmode": "array", "tickvals": list(range(len(texts))), "ticktext": texts}
        ends = [-0.5, len(texts) - 0.5]
        found |= {"range": ends[::-1] if reverse else ends, "zeroline": False, "showgrid": False}
    elif axis.low is not None and axis.high is not None:
        ends = [axis.low, axis.high]
        found["range"] = [math.log10(v) for v in ends] if axis.log else ends
    if axis.percent:
        found["tickformat"] = ".4~%"
    return found


def _numbers(values: Sequence[Number], axis: Axis) -> list[Number]:
    return [
        None
        if v is None or not math.isfinite(v) or (axis.log and v <= 0)
        else float(f"{v:.6g}")
        if isinstance(v, float)
        else v
        for v in values
    ]


def _short(text: str, most: int = 26) -> str:
    return plotly_text(text if len(text) <= most else text[: most - 1] + "…")
