"""Where the boxes of a small graph go: in columns from left to right, edges around the boxes.

Every box has a column, and an edge over several columns has a place of its own in each, so that it
bends between columns alone and runs straight through them: edges never cross boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import lsq_linear

STRAIGHT = 10.0  # weight of a rise along an edge, over one at its ends
STEEPEST = 0.35  # distance of two columns over the rise of an edge between them
SWEEPS = 40  # to and fro


@dataclass
class Place:
    """A box, or the passage of an edge through a column; lengths and positions in points.

    Attributes:
        column: from 0, at the left.
        width, height: of the box; both 0 for a passage.
        x, y: its centre, upwards.
        left, right: the sides of its column.
        before, after: the places that edges join it to, in the columns beside it.
    """

    column: int
    width: float = 0
    height: float = 0
    x: float = 0
    y: float = 0
    left: float = 0
    right: float = 0
    before: list[int] = field(default_factory=list)
    after: list[int] = field(default_factory=list)


def arrange(
    places: Sequence[Place], chains: Sequence[Sequence[int]], *, between: float, apart: float
) -> None:
    """Give every place all that follows its size.

    Args:
        places: their columns are known, and none is empty.
        chains: the edges, as the places that they pass, one in each column.
        between: the least distance of two columns; it grows where edges rise steeply.
        apart: the least distance of two places of a column.
    """
    for chain in chains:
        for one, next_one in zip(chain, chain[1:], strict=False):
            places[one].after.append(next_one)
            places[next_one].before.append(one)
    columns: list[list[int]] = [[] for _ in range(max(p.column for p in places) + 1)]
    for i, place in enumerate(places):
        columns[place.column].append(i)
    _order(places, columns)
    _rows(places, columns, chains, apart)
    left = 0.0
    for column in columns:
        right = left + max(places[i].width for i in column)
        for i in column:
            places[i].left, places[i].x, places[i].right = left, (left + right) / 2, right
        rises = [abs(places[i].y - places[j].y) for i in column for j in places[i].after]
        left = right + max(between, STEEPEST * max(rises, default=0))


def _order(places: Sequence[Place], columns: list[list[int]]) -> None:
    """Sort each column by the mean row of its neighbours, to and fro; keep the fewest crossings."""
    best, fewest = [list(column) for column in columns], _crossings(places, columns)
    for sweep in range(SWEEPS):
        for column in columns if sweep % 2 == 0 else reversed(columns):
            row = {i: float(r) for other in columns for r, i in enumerate(other)}
            key = dict(row)
            for i in column:
                near = places[i].before if sweep % 2 == 0 else places[i].after
                key[i] = _mean([row[j] for j in near] or [row[i]])
            column.sort(key=key.__getitem__)
        if (crossings := _crossings(places, columns)) < fewest:
            best, fewest = [list(column) for column in columns], crossings
    for column, order in zip(columns, best, strict=True):
        column[:] = order


def _crossings(places: Sequence[Place], columns: list[list[int]]) -> int:
    row = {i: r for column in columns for r, i in enumerate(column)}
    count = 0
    for column in columns:
        links = [(row[i], row[j]) for i in column for j in places[i].after]
        count += sum((a - c) * (b - d) < 0 for n, (a, b) in enumerate(links) for c, d in links[:n])
    return count


def _rows(
    places: Sequence[Place], columns: list[list[int]], chains: Sequence[Sequence[int]], apart: float
) -> None:
    """Keep what is joined at one height, as far as order and distances in the columns let it.

    Least squares of the rises, over the lowest row of each column and the distances above it; those
    along one edge count more, which makes it straight.
    """
    rows = np.zeros((len(places), len(places)))  # of the unknowns: which rows each one moves
    least = np.full(len(places), -np.inf)
    for column in columns:
        for n, i in enumerate(column):
            rows[column[n:], i] = 1
            if n:
                least[i] = (places[column[n - 1]].height + places[i].height) / 2 + apart
    on_edges = {i for chain in chains for i in chain[1:-1]}
    rises = [
        (rows[j] - rows[i]) * (STRAIGHT if {i, j} <= on_edges else 1)
        for i, place in enumerate(places)
        for j in place.after
    ]
    anchored = np.vstack([*rises, 1e-3 * rows])  # about 0, of all pictures with equal rises
    found = lsq_linear(anchored, np.zeros(len(anchored)), (least, np.inf))
    for place, y in zip(places, rows @ found.x, strict=True):
        place.y = float(y)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
