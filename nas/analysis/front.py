"""The Pareto front of a trial table, and the volume that it dominates.

A trial that did not complete is on no front, and none that lacks one of the scores.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from nas.analysis.scores import Scores, complete_rows, ways_of
from nas.errors import InputError
from nas.ledger.fronts import hypervolume as volume_of_few
from nas.ledger.fronts import pareto_front
from nas.types import FloatArray


def pareto(table: pd.DataFrame, scores: Scores = None, *, trusted: bool = False) -> pd.DataFrame:
    """Return the rows of a table that no other row beats in every score, in the table's order.

    Only complete trials that have all of the scores take part. Equal ones are on the front
    together.

    Args:
        table: of :func:`nas.analysis.load_table`.
        scores: names, each better as the search has it (``attrs["directions"]``); or name ->
            ``max`` or ``min``; None takes the objectives.
        trusted: leave out trials that raise a suspicion flag.

    Raises:
        InputError: no such score, or a direction that is none; ``trusted`` of a table without
            suspicion flags.
    """
    ways = ways_of(table, scores)
    rows = complete_rows(table, trusted=trusted)
    inside = pareto_front(_values(rows, ways), list(ways.values()))
    return rows[inside]


def reference_point(table: pd.DataFrame, scores: Scores = None) -> dict[str, float]:
    """Return score -> the worst that a complete trial of the table has, the default reference.

    Raises:
        InputError: no such score, or no complete trial has all of them.
    """
    ways = ways_of(table, scores)
    values = _finite(table, ways)
    if not len(values):
        raise InputError(f"expected a complete trial with {', '.join(ways)}, got none")
    worst = [
        column.min() if way == "max" else column.max()
        for column, way in zip(values.T, ways.values(), strict=True)
    ]
    return dict(zip(ways, map(float, worst), strict=True))


def hypervolume(
    table: pd.DataFrame,
    scores: Scores = None,
    reference: Sequence[float] | Mapping[str, float] | None = None,
) -> float:
    """Return the volume between the front and a reference point: larger is a better front.

    In the unit of the scores multiplied. Exact; of up to three scores in O(n log n). Only complete
    trials count that have all of the scores as finite numbers, and of those what is better than
    the reference in every score; 0 where there is none.

    Args:
        table: of :func:`nas.analysis.load_table`.
        scores: as of :func:`pareto`.
        reference: a value of each score, in the order of ``scores`` or by name. None takes the
            worst of this table (:func:`reference_point`): to compare tables, give one for both.

    Raises:
        InputError: no such score, or a reference that has not a finite value of each.
    """
    ways = ways_of(table, scores)
    values = _finite(table, ways)
    if not len(values) and reference is None:
        return 0.0
    worst = reference_point(table, ways) if reference is None else named_point(reference, ways)
    signs = np.array([1.0 if way == "max" else -1.0 for way in ways.values()])
    above = (values - np.array(list(worst.values()))) * signs
    return volume(above[(above > 0).all(axis=1)])


def volume(points: FloatArray) -> float:
    """Return the volume that points dominate above the origin, larger coordinates better.

    Of three coordinates in O(n log n) by a sweep (Beume et al. 2009, IEEE TEVC 13): from the
    highest third coordinate downwards, the area of the front of what was seen changes by the
    rectangles that a new point adds. Of more by slices of that.

    Args:
        points: ``(n, k)``, all above 0.
    """
    if len(points) == 0 or points.shape[1] < 3:
        return volume_of_few(points)
    points = points[np.argsort(-points[:, -1], kind="stable")]
    below = np.append(points[1:, -1], 0.0)
    heights = points[:, -1] - below
    if points.shape[1] == 3:
        return float(_areas(points[:, :2]) @ heights)
    return float(
        sum(volume(_undominated(points[: i + 1, :-1])) * h for i, h in enumerate(heights) if h > 0)
    )


def named_point(
    reference: Sequence[float] | Mapping[str, float], ways: Mapping[str, str]
) -> dict[str, float]:
    """Return a reference point by score, in the order of the scores.

    Raises:
        InputError: it has not a finite number of each score.
    """
    given = (
        reference if isinstance(reference, Mapping) else dict(zip(ways, reference, strict=False))
    )
    if (
        set(given) != set(ways)
        or len(reference) != len(ways)
        or not np.isfinite(list(given.values())).all()
    ):
        raise InputError(f"reference: expected a number for {', '.join(ways)}, got {reference}")
    return {name: float(given[name]) for name in ways}


# ------------------------------------------------------------------------------------------- parts


def _values(rows: pd.DataFrame, ways: Mapping[str, str]) -> FloatArray:
    found: FloatArray = rows[list(ways)].to_numpy(dtype=float, na_value=np.nan)
    return found


def _finite(table: pd.DataFrame, ways: Mapping[str, str]) -> FloatArray:
    values = _values(complete_rows(table), ways)
    return values[np.isfinite(values).all(axis=1)]


def _undominated(points: FloatArray) -> FloatArray:
    return points[pareto_front(points, ["max"] * points.shape[1])]


def _areas(points: FloatArray) -> FloatArray:
    """Return ``(n,)``: the area that the first i + 1 points dominate, for each i.

    ``xs`` rises and ``ys`` falls: the corners of the front so far, between two that bound it.
    """
    xs, ys = [0.0, np.inf], [np.inf, 0.0]
    areas = np.empty(len(points))
    area = 0.0
    for i, (x, y) in enumerate(points.tolist()):
        at = bisect_left(xs, x)
        if ys[at] < y:  # nothing to the right is as high
            first = at
            while ys[first - 1] <= y:
                first -= 1
            left = xs[first - 1]
            for corner in range(first, at + 1):
                right = min(xs[corner], x)
                area += (right - left) * (y - ys[corner])
                left = right
            gone = at + 1 if xs[at] == x else at
            xs[first:gone], ys[first:gone] = [x], [y]
        areas[i] = area
    return areas
