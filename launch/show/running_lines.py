"""The running trials of a search as lines for a person, by node."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nas.search.hanging import duration
from nas.search.running import Row

NOWHERE = "a node that is not known yet"


def by_node(rows: Sequence[Row]) -> list[Row]:
    """Return rows with those of a node together, nodes and rows that told last first."""
    news: dict[str, float] = {}
    for row in rows:
        news[row.host] = min(row.silent_seconds, news.get(row.host, math.inf))
    return sorted(rows, key=lambda r: (news[r.host], r.host, r.silent_seconds, r.number))


def running_lines(rows: Sequence[Row], most: int, *, host: bool = True) -> list[str]:
    """Return one line a trial, ``most`` lines at the most: the last says how many are left out.

    ``host``: whether they name their nodes.
    """
    ordered = by_node(rows)
    shown = ordered if len(ordered) <= most else ordered[: max(most - 1, 0)]
    cells = [_cells(row, host) for row in shown]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    if left := len(ordered) - len(shown):
        lines.append(f"and {left} more")
    return lines[:most]


def on_one_line(rows: Sequence[Row], most: int = 4) -> str:
    """Return running trials as one line of a log."""
    ordered = by_node(rows)
    told = "; ".join(" ".join(filter(None, _cells(row, True))) for row in ordered[:most])
    left = f"; and {len(rows) - most} more" if len(rows) > most else ""
    return f"{len(rows)} running: {told}{left}"


def accuracy(value: float | None) -> str:
    """Return an accuracy as ``.412``; nothing of none."""
    if value is None or not math.isfinite(value):
        return ""
    return f"{value:.3f}".removeprefix("0")


def _cells(row: Row, host: bool) -> tuple[str, ...]:
    place = row.place or NOWHERE if host else row.place.removeprefix(row.host).strip()
    robust = accuracy(row.robust_accuracy)
    return (
        f"trial {row.number}",
        place,
        f"epoch {row.epoch}/{row.epochs}",
        robust and f"robust accuracy {robust}",
        duration(row.seconds),
    )
