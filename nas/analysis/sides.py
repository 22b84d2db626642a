"""The two sides of a comparison: which numbers each has, and which belong together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nas.analysis.front import hypervolume, reference_point
from nas.analysis.scores import complete_rows, ways_of
from nas.analysis.trial_table import load_table
from nas.errors import InputError
from nas.types import FloatArray

Side = str | Path | pd.DataFrame | Sequence[str | Path]
"""A run directory, several (one a seed, say), or a table of :func:`nas.analysis.load_table`."""

BESIDE = ("recipe.", "data.")  # decisions that no architecture holds


def table_of_side(side: Side) -> pd.DataFrame:
    """Return the table of a side."""
    if isinstance(side, pd.DataFrame):
        return side
    return load_table(side) if isinstance(side, str | Path) else load_table(*side)


def common_score(left: pd.DataFrame, right: pd.DataFrame, score: str | None) -> tuple[str, str]:
    """Return the score, by default the first objective of both, and which way is better.

    Raises:
        InputError: one side has no such score, or the sides disagree.
    """
    if score is None:
        score = next(iter(common_objectives(left, right)))
    ways = [ways_of(side, score)[score] for side in (left, right)]
    own = [side.attrs.get("objectives", {}).get(score) for side in (left, right)]
    if None not in own and own[0] != own[1]:
        raise InputError(f"expected one direction of {score}, got {own[0]} and {own[1]}")
    return score, own[0] or own[1] or ways[0]


def common_objectives(left: pd.DataFrame, right: pd.DataFrame) -> dict[str, str]:
    """Return the objectives of both sides.

    Raises:
        InputError: there is none.
    """
    first, second = (side.attrs.get("objectives", {}) for side in (left, right))
    if not (shared := {name: way for name, way in first.items() if name in second}):
        raise InputError(
            "expected an objective that both have "
            f"({', '.join(first) or 'none'}; {', '.join(second) or 'none'}): give a score"
        )
    return shared


def scored(side: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the complete trials with a finite score."""
    rows = complete_rows(side)
    found: pd.DataFrame = rows[np.isfinite(rows[name].to_numpy(dtype=float, na_value=np.nan))]
    return found


def named(side: pd.DataFrame) -> str:
    """Return the names of a side's runs."""
    return ", ".join(side.attrs.get("runs", {})) or "a table"


def runs_of(side: pd.DataFrame) -> list[str]:
    """Return the names of the runs that have trials."""
    return [str(run) for run in side["run"].unique()] if "run" in side else [""]


def seeds_of(side: pd.DataFrame) -> dict[str, Any]:
    """Return run -> its seed, of those that are known."""
    said = side.attrs.get("runs", {})
    return {run: said[run].get("seed") for run in runs_of(side) if run in said}


def pairs_of(x: pd.DataFrame, y: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return columns ``a`` and ``b``: the mean score of each architecture that both sides have.

    With the same varied recipe and data, where both sides vary them.
    """
    beside = [c for c in map(str, x.columns) if c.startswith(BESIDE) and c in y]
    keys = ["architecture", *beside]
    sides = []
    for side, which in ((x, "a"), (y, "b")):
        keyed = side.dropna(subset=["architecture"])
        keyed = keyed.assign(**{key: keyed[key].astype(str) for key in keys})
        sides.append(keyed.groupby(keys)[name].mean().rename(which))
    found: pd.DataFrame = pd.concat(sides, axis=1, join="inner")
    return found


def of_architectures(x: pd.DataFrame, y: pd.DataFrame, name: str) -> tuple[FloatArray, FloatArray]:
    """Return the scores of the architectures of both sides, below each other.

    Raises:
        InputError: there is none.
    """
    pairs = pairs_of(x, y, name)
    if pairs.empty:
        raise InputError("--by architecture: expected an architecture on both sides, got none")
    return pairs["a"].to_numpy(dtype=float), pairs["b"].to_numpy(dtype=float)


def of_trials(x: pd.DataFrame, y: pd.DataFrame, name: str) -> tuple[FloatArray, FloatArray]:
    """Return the scores of all trials."""
    return x[name].to_numpy(dtype=float), y[name].to_numpy(dtype=float)


def equal_trials(left: pd.DataFrame, right: pd.DataFrame) -> int:
    """Return how many finished trials every run has."""
    return min(len(own) for side in (left, right) for own in _finished(side).values())


def values_of_runs(
    side: pd.DataFrame, name: str, way: str, of: str, at: int | None
) -> dict[str, float]:
    """Return run -> the mean of its scores, or the best of its first ``at`` trials.

    NaN where it has no score among them.
    """
    found = {}
    for run, ended in _finished(side).items():
        values = scored(ended if at is None else ended.head(at), name)[name]
        best = values.max() if way == "max" else values.min()
        found[run] = float(values.mean() if of == "trials" else best) if len(values) else math.nan
    return found


def volumes_of_runs(
    side: pd.DataFrame, ways: Mapping[str, str], point: Mapping[str, float], at: int | None
) -> dict[str, float]:
    """Return run -> the hypervolume of its first ``at`` trials."""
    return {
        run: hypervolume(ended.head(len(ended) if at is None else at), ways, point)
        for run, ended in _finished(side).items()
    }


def worst_of(left: pd.DataFrame, right: pd.DataFrame, ways: Mapping[str, str]) -> dict[str, float]:
    """Return the worst of both sides in each score."""
    both = [reference_point(side, ways) for side in (left, right)]
    return {n: (min if way == "max" else max)(p[n] for p in both) for n, way in ways.items()}


def of_seeds(
    one: Mapping[str, float],
    other: Mapping[str, float],
    left: pd.DataFrame,
    right: pd.DataFrame,
) -> tuple[FloatArray, FloatArray]:
    """Return the values of the runs of the same seed below each other.

    Raises:
        InputError: runs without a seed, two of one seed on a side, or none that both have.
    """
    sides = []
    for values, side in ((one, left), (other, right)):
        seeds = seeds_of(side)
        if len(seeds) < len(values) or None in seeds.values():
            raise InputError("--by seed: expected runs that know their seed, got a table of others")
        if len(set(seeds.values())) < len(seeds):
            raise InputError(f"--by seed: expected one run a seed, got {sorted(seeds.values())}")
        sides.append({seeds[run]: value for run, value in values.items()})
    shared = [seed for seed in sides[0] if seed in sides[1]]
    if not shared:
        told = " and ".join(str(sorted(side)) for side in sides)
        raise InputError(f"--by seed: expected runs of the same seeds, got {told}")
    pairs = np.array([[side[seed] for side in sides] for seed in shared])
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    return pairs[:, 0], pairs[:, 1]


def of_runs(one: Mapping[str, float], other: Mapping[str, float]) -> tuple[FloatArray, FloatArray]:
    """Return the values of the runs that have one."""
    x, y = (np.array(list(side.values())) for side in (one, other))
    return x[np.isfinite(x)], y[np.isfinite(y)]


# ------------------------------------------------------------------------------------------- parts


def _finished(side: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return run -> its finished trials, without repeats, by number."""
    ended = side[(side["status"] != "running").to_numpy(bool)]
    if "repeat_of" in ended:
        ended = ended[ended["repeat_of"].isna()]
    ended = ended.sort_values("number", kind="stable")
    if "run" not in ended:
        return {"": ended}
    return {run: ended[(ended["run"] == run).to_numpy(bool)] for run in runs_of(side)}
