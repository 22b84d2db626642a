"""The best of a search trained again under fresh seeds: which of them was lucky.

A search keeps the best of many noisy numbers, so the number of its winner is too good: the winner's
curse. Fresh seeds are drawn after the choice, and have no part in it: their mean regresses to what
the architecture is worth. ``psinas seeds`` trains them; :func:`seeds` reads the tables.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from scipy import stats

from nas.errors import InputError
from nas.ledger.table import load_table
from nas.search.trust import suspicions, was_checked

SEEDS = "seeds"
"""The directory in a run that holds the searches over fresh seeds."""
REPEAT = "repeat"

WINNER, LEVEL, BEHIND, UNKNOWN = "winner", "level", "behind", "unknown"
"""Verdicts: the best worse end; its interval overlaps the winner's; it does not; too few seeds."""


def seeds(
    run: str | Path | pd.DataFrame,
    *fresh: str | Path | pd.DataFrame,
    score: str | None = None,
    direction: str | None = None,
    by: Sequence[str] | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Return what fresh seeds say of the architectures that a search chose, best first.

    The interval is Student's, of the mean over n seeds: ``mean ± t(n - 1) std / sqrt(n)``. It takes
    the scores of one architecture for normal; of one seed there is none. Rank 1 has the best worse
    end (the lower one where more is better), so that neither a lucky seed nor few of them win; an
    architecture with a raised suspicion flag comes behind those without.

    Args:
        run: the search: its directory or trial table.
        fresh: searches of the same under fresh seeds; none are those in ``RUN/seeds``. A trial that
            several of them have counts once.
        score: which; None is the first objective of the run directory.
        direction: ``max`` or ``min``; None is as the run has it, else ``max``.
        by: columns that tell apart what was repeated; None is ``architecture`` and what the run
            varies beside it, its seeds aside.
        confidence: of the intervals.

    Returns:
        One row for each: ``number`` (the trial of the search), the columns of ``by``, ``original``
        (its score there), ``original_rank`` (among these, the earlier of equals first), ``n``
        (fresh seeds that completed), ``failed``, ``mean``, ``std``, ``low``, ``high``,
        ``shrinkage`` (by how much the original was better than the mean), ``rank``, ``held`` (the
        two ranks are equal), ``overlaps`` (its interval has a part of the winner's), ``flagged``
        (fresh seeds with a suspicion flag), ``luck`` (the original is better than one more seed
        would be with this confidence: ``mean ± t std sqrt(1 + 1/n)``) and ``verdict``: ``winner``,
        ``level`` (with it), ``behind`` or ``unknown`` (fewer than two seeds).

    Raises:
        InputError: no fresh seeds, no such score or column, or a confidence outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence: expected a number in (0, 1), got {confidence}")
    config = {} if isinstance(run, pd.DataFrame) else _config(Path(run))
    if not fresh and not isinstance(run, pd.DataFrame):
        fresh = tuple(fresh_runs(Path(run)))
    if not fresh:
        raise InputError(f"expected trials under fresh seeds, got none: `psinas seeds {run}`")
    objectives = config.get("objectives", {})
    score = score or next(iter(objectives), None)
    if score is None:
        raise InputError("score: expected the name of a score beside a table, got none")
    direction = direction or objectives.get(score, "max")
    if direction not in ("max", "min"):
        raise InputError(f"direction: expected max or min, got {direction!r}")
    varied = [name for name in config.get("vary", {}) if name != REPEAT]
    by = list(by) if by is not None else ["architecture", *varied]
    original = _table(run, [*by, score, "number", "status"])
    tables = [_table(table, [*by, REPEAT, "status"]) for table in fresh]
    again = pd.concat(tables, ignore_index=True)
    if score not in again:  # none of them completed
        again[score] = math.nan
    again = again[~again["status"].isin(["running", "left"])]
    # A complete one first: another directory may have trained again what failed in one.
    again = again.sort_values("status", key=lambda s: s != "complete", kind="stable")
    again = again.drop_duplicates([*by, REPEAT])
    sign = 1.0 if direction == "max" else -1.0
    before = original[original["status"] == "complete"]
    before = before.sort_values(score, ascending=sign < 0, kind="stable").drop_duplicates(by)
    known = {_key(row[name] for name in by): row for row in before.to_dict("records")}
    again = pd.concat([again, _flagged(again)], axis=1)
    rows = []
    for key, some in again.groupby(by, dropna=False, sort=False):
        found = known.get(_key(key), {"number": pd.NA, score: math.nan})
        rows.append({**dict(zip(by, key, strict=True)), **_row(found, some, score, confidence)})
    return _ranked(pd.DataFrame(rows), by, sign, confidence)


def fresh_runs(run: Path) -> list[Path]:
    """Return the searches over fresh seeds that ``psinas seeds`` has begun in a run."""
    return sorted(path.parent for path in (run / SEEDS).glob("*/config.yaml"))


def shrinkage(found: pd.DataFrame) -> float:
    """Return the mean by which the originals were better than their fresh seeds; NaN of none."""
    return float(found["shrinkage"].mean())


# ------------------------------------------------------------------------------------------- parts


def _config(run: Path) -> dict[str, Any]:
    saved = run / "config.yaml"
    return yaml.safe_load(saved.read_text(encoding="utf-8")) if saved.exists() else {}


def _table(table: str | Path | pd.DataFrame, needed: Sequence[str]) -> pd.DataFrame:
    found = table if isinstance(table, pd.DataFrame) else load_table(table)
    if missing := [name for name in dict.fromkeys(needed) if name not in found]:
        known = ", ".join(map(str, found.columns))
        raise InputError(f"expected the columns {', '.join(missing)}, got a table with {known}")
    return found


def _key(values: Iterable[Any]) -> tuple[Any, ...]:
    """Return values by which rows are told apart; one that is missing equals another."""
    return tuple(None if pd.isna(value) else value for value in values)


def _flagged(table: pd.DataFrame) -> pd.Series:
    """Return which rows have a raised suspicion flag."""
    names = [name for name in map(str, table.columns) if was_checked({name: 1.0})]
    rows = table[names].to_dict("records")
    found = [bool(suspicions({str(k): v for k, v in row.items()})) for row in rows]
    return pd.Series(found, index=table.index, dtype=bool, name="flagged")


def _row(
    before: Mapping[Any, Any], again: pd.DataFrame, score: str, confidence: float
) -> dict[str, Any]:
    """Return the numbers of one architecture."""
    values = again.loc[again["status"] == "complete", score].to_numpy(dtype=float)
    values = values[np.isfinite(values)]
    n = len(values)
    mean = float(values.mean()) if n else math.nan
    std = float(values.std(ddof=1)) if n > 1 else math.nan
    half = _quantile(n, confidence) * std / math.sqrt(n) if n > 1 else math.nan
    return {
        "number": before["number"],
        "original": float(before[score]),
        "n": n,
        "failed": len(again) - n,
        "mean": mean,
        "std": std,
        "low": mean - half,
        "high": mean + half,
        "flagged": int(again["flagged"].sum()),
    }


@cache
def _quantile(n: int, confidence: float) -> float:
    return float(stats.t.ppf((1 + confidence) / 2, n - 1))


def _ranked(found: pd.DataFrame, by: Sequence[str], sign: float, confidence: float) -> pd.DataFrame:
    """Return the rows best first, with their ranks and what follows from them."""
    worse = sign * (found["low"] if sign > 0 else found["high"])
    doubtful = found["flagged"] > 0
    # Without two seeds there is no worse end: such rows come last, by their means.
    keys = pd.DataFrame({"f": doubtful, "u": worse.isna(), "w": -worse, "m": -sign * found["mean"]})
    found = found.loc[keys.sort_values(["u", "f", "w", "m"], kind="stable").index]
    found = found.reset_index(drop=True)
    found["rank"] = range(1, len(found) + 1)
    by_number = found.sort_values("number", kind="stable")  # of equals the earlier, as a search has
    ranks = (sign * by_number["original"]).rank(ascending=False, method="first")
    found["original_rank"] = ranks  # by the index
    found["original_rank"] = found["original_rank"].astype("Int64")
    found["shrinkage"] = sign * (found["original"] - found["mean"])
    first = found.iloc[0]
    known = found["low"].notna()
    found["overlaps"] = known & (found["low"] <= first["high"]) & (found["high"] >= first["low"])
    spread = [
        _quantile(n, confidence) * std * math.sqrt(1 + 1 / n) if n > 1 else math.nan
        for n, std in zip(found["n"], found["std"], strict=True)
    ]
    found["luck"] = found["shrinkage"] > np.array(spread)  # never of NaN
    found["held"] = (found["rank"] == found["original_rank"]).fillna(False).astype(bool)
    found["verdict"] = np.where(known, np.where(found["overlaps"], LEVEL, BEHIND), UNKNOWN)
    if known.iloc[0]:
        found.loc[0, "verdict"] = WINNER
    found["number"] = found["number"].astype("Int64")
    names = "original original_rank n failed mean std low high shrinkage rank held overlaps flagged"
    return found[["number", *by, *names.split(), "luck", "verdict"]]
