"""Parallel coordinates: each trial a line over its decisions and objectives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from launch.report.charts import Chart
from launch.report.drawn import WIDTH, clipped, text_of
from launch.report.figures import plotly_text
from launch.report.findings import Findings
from launch.report.numbers import told
from launch.report.page import Section
from launch.report.sampling import few
from nas.types import FloatArray

BEST, OTHERS = 60, 160  # lines that are drawn of the best tenth, and of the others
DECISIONS = 8
HEIGHT, TOP, BOTTOM, SIDE = 360, 34, 18, 48
SPREAD = 0.035  # of the height: how far trials of one choice are set apart


@dataclass(frozen=True)
class Scale:
    """One upright axis.

    Attributes:
        name: of the decision or score.
        places: ``(n,)``, where each trial crosses it, in [0, 1]; NaN where it does not.
        marks: texts and where they stand.
    """

    name: str
    places: FloatArray
    marks: Sequence[tuple[float, str]]


def make(found: Findings) -> Section | None:
    """Return the chart; None with fewer than two axes or trials."""
    names = [n for n in found.decisions if found.complete[n].nunique() > 1][:DECISIONS]
    scores = [n for n in found.objectives if n in found.complete][:2]
    if len(found.complete) < 2 or len(names) + len(scores) < 2 or not scores:
        return None
    rows = found.complete[np.isfinite(found.complete[scores[0]].to_numpy(float, na_value=np.nan))]
    if len(rows) < 2:
        return None
    best = best_tenth(rows[scores[0]].to_numpy(float), found.direction(scores[0]))
    top = np.flatnonzero(best)
    top = top[few(len(top), most=BEST)]
    rest = np.flatnonzero(~best)
    rest = rest[few(len(rest), most=OTHERS)]
    scales = [choice_scale(rows[n], n) for n in names] + [score_scale(rows[n], n) for n in scores]
    chart = _chart(found, rows, scales, top, rest, scores[0], int(best.sum()))
    lead = (
        "A line is a trial; it crosses each axis at its choice or score. The best tenth by "
        f"{scores[0]} are drawn strong. Trials of one choice are set a little apart."
    )
    if (more := len(found.decisions) - len(names)) > 0:
        lead += f" {more} decisions are left out: they did not vary, or there is no room."
    return Section("parallel", "Decisions of the best", lead, [chart])


def best_tenth(values: FloatArray, direction: str) -> NDArray[np.bool_]:
    """Return which values are among the best tenth, at least one; equals of the last are in."""
    better = values if direction == "max" else -values
    count = max(1, round(len(values) / 10))
    found: NDArray[np.bool_] = better >= np.sort(better)[-count]
    return found


def choice_scale(column: pd.Series, name: str) -> Scale:
    """Return the axis of a decision: its choices in order, evenly apart."""
    present = column.dropna().unique().tolist()
    numbers = all(isinstance(c, int | float) and not isinstance(c, bool) for c in present)
    choices = sorted(present, key=float if numbers else str)
    where = {choice: i for i, choice in enumerate(choices)}
    at = np.array([where.get(v, np.nan) if not _none(v) else np.nan for v in column], dtype=float)
    most = max(len(choices) - 1, 1)
    jitter = np.random.default_rng(0).uniform(-SPREAD, SPREAD, len(at))
    every = max(1, -(-len(choices) // 12))
    marks = [(i / most, _choice(c)) for i, c in enumerate(choices) if i % every == 0]
    return Scale(name, at / most + jitter, marks)


def score_scale(column: pd.Series, name: str) -> Scale:
    """Return the axis of a score, from its smallest to its largest value."""
    values = column.to_numpy(float, na_value=np.nan)
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return Scale(name, np.full(len(values), np.nan), [])
    low, high = float(finite.min()), float(finite.max())
    log = low > 0 and high > 50 * low
    scaled = np.log10(np.where(values > 0, values, np.nan)) if log else values
    first, last = (np.log10(low), np.log10(high)) if log else (low, high)
    width = (last - first) or 1.0
    marks = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        at = first + share * width
        marks.append((share, told(float(f"{(10**at if log else at):.3g}"), name)))
    return Scale(name, (scaled - first) / width, marks)


def _chart(
    found: Findings,
    rows: pd.DataFrame,
    scales: Sequence[Scale],
    top: NDArray[np.intp],
    rest: NDArray[np.intp],
    score: str,
    tenth: int,
) -> Chart:
    caption = (
        f"{len(top):,} of the {tenth:,} trials of the best tenth and {len(rest):,} of the "
        f"{len(rows) - tenth:,} others, drawn at random where they are fewer."
    )
    title = f"Over decisions and {score}"
    svg = _svg(scales, top, rest, title, caption)
    return Chart("parallel-chart", title, caption, svg, _figure(found, rows, scales, top, rest))


def _svg(
    scales: Sequence[Scale], top: NDArray[np.intp], rest: NDArray[np.intp], title: str, desc: str
) -> str:
    step = (WIDTH - 2 * SIDE) / max(len(scales) - 1, 1)
    inside = HEIGHT - TOP - BOTTOM

    def y(place: float) -> float:
        return TOP + 6 + (1 - place) * (inside - 12)

    def path(row: int) -> str:
        d, pen = "", "M"
        for i, scale in enumerate(scales):
            place = scale.places[row]
            if np.isnan(place):
                pen = "M"
                continue
            d += f"{pen}{SIDE + i * step:.1f} {y(float(place)):.1f}"
            pen = "L"
        return d

    parts = [
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'xmlns="http://www.w3.org/2000/svg">'
        f"<title>{text_of(title)}</title><desc>{text_of(desc)}</desc>",
        '<g class="s5 faint">',
        *(f'<path class="line" d="{path(int(i))}"/>' for i in rest),
        '</g><g class="s0 strong">',
        *(f'<path class="line" d="{path(int(i))}"/>' for i in top),
        "</g>",
    ]
    letters = max(6, int(step / 6.4) - 1)
    for i, scale in enumerate(scales):
        x = SIDE + i * step
        head = clipped(scale.name, letters)
        full = f"<title>{text_of(scale.name)}</title>" if head != scale.name else ""
        parts.append(
            f'<line class="base" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
            f'<text class="axis" text-anchor="middle" x="{x:.1f}" y="{20 if i % 2 else 12}">'
            f"{text_of(head)}{full}</text>"
        )
        for place, text in scale.marks:
            parts.append(
                f'<text class="tick halo" x="{x + 5:.1f}" y="{y(place) + 4:.1f}">'
                f"{text_of(clipped(text, 10))}</text>"
            )
    return "".join([*parts, "</svg>"])


def _figure(
    found: Findings,
    rows: pd.DataFrame,
    scales: Sequence[Scale],
    top: NDArray[np.intp],
    rest: NDArray[np.intp],
) -> dict[str, Any]:
    data = []
    for name, places, style in (
        ("others", rest, {"color": "var(--faint)", "width": 0.7}),
        ("best tenth", top, {"color": "var(--c0)", "width": 1.2}),
    ):
        x: list[int | None] = []
        y: list[float | None] = []
        hover: list[str] = []
        for i in places:
            text = plotly_text(found.told(rows.iloc[int(i)].to_dict()))
            for axis, scale in enumerate(scales):
                place = float(scale.places[i])
                x.append(axis)
                y.append(None if np.isnan(place) else round(place, 4))
                hover.append(text if axis in (0, len(scales) - 1) else "")
            x.append(None)
            y.append(None)
            hover.append("")
        trace = {"type": "scatter", "mode": "lines", "name": name, "x": x, "y": y}
        shown = {"hovertext": hover, "hoverinfo": "text", "line": style, "opacity": 0.7}
        data.append({**trace, **shown})
    notes = [
        {
            "x": axis, "y": place, "text": plotly_text(clipped(text, 10)), "showarrow": False,
            "xanchor": "left", "xshift": 3, "bgcolor": "var(--paper)", "opacity": 0.9,
            "borderpad": 0, "font": {"size": 11},
        }
        for axis, scale in enumerate(scales)
        for place, text in scale.marks
    ]  # fmt: skip
    layout = {
        "xaxis": {
            "tickmode": "array",
            "tickvals": list(range(len(scales))),
            "ticktext": [plotly_text(clipped(scale.name, 22)) for scale in scales],
            "range": [-0.1, len(scales) - 0.55],
            "showgrid": True,
            "zeroline": False,
        },
        "yaxis": {"visible": False, "range": [-0.08, 1.08]},
        "annotations": notes,
        "height": 440,
        "hovermode": "closest",
        "showlegend": True,
    }
    return {"data": data, "layout": layout}


def _choice(choice: Any) -> str:
    return f"{choice:g}" if isinstance(choice, float) else str(choice)


def _none(value: Any) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))
