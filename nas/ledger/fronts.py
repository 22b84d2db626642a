"""Which rows no other row beats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def pareto_front(values: ArrayLike, directions: Sequence[str]) -> NDArray[np.bool_]:
    """Return ``(n,)`` bool: rows that no other row dominates; a row with a NaN is never in.

    Args:
        values: ``(n, k)``, one row a trial, one column an objective.
        directions: ``max`` or ``min`` for each column.

    Raises:
        ValueError: the shape does not fit the directions, or an unknown direction.
    """
    v = np.asarray(values, dtype=float)
    if v.ndim != 2 or v.shape[1] != len(directions):
        raise ValueError(f"expected (n, {len(directions)}) values, got {v.shape}")
    if unknown := set(directions) - {"max", "min"}:
        raise ValueError(f"expected directions max or min, got {sorted(unknown)}")
    v = v * np.array([1.0 if d == "max" else -1.0 for d in directions])
    valid = ~np.isnan(v).any(axis=1)
    front: NDArray[np.bool_] = valid.copy()
    for i in np.flatnonzero(valid):
        better = (v[valid] >= v[i]).all(axis=1) & (v[valid] > v[i]).any(axis=1)
        front[i] = not better.any()
    return front


def hypervolume(points: ArrayLike) -> float:
    """Return the volume that the points dominate above the origin, larger coordinates better.

    By slicing along the last coordinate (While et al. 2006): exact, for a few objectives.

    Args:
        points: ``(n, k)``; a coordinate below 0 counts as 0.
    """
    p = np.asarray(points, dtype=float).clip(min=0.0)
    if len(p) == 0:
        return 0.0
    if p.shape[1] == 1:
        return float(p.max())
    p = p[np.argsort(-p[:, -1], kind="stable")]
    below = np.append(p[1:, -1], 0.0)
    if p.shape[1] == 2:
        return float(np.maximum.accumulate(p[:, 0]) @ (p[:, 1] - below))
    return sum(
        hypervolume(p[: i + 1, :-1]) * float(p[i, -1] - low)
        for i, low in enumerate(below)
        if p[i, -1] > low
    )
