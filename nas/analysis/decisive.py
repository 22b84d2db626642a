"""Which decisions made the difference: importance, with intervals over resampled trials.

An importance says how much of the difference between good and other trials goes with a decision,
among the trials that there are. It is no cause, and a sampler that soon leaves bad choices alone
shows little of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from nas.analysis.fanova import TREES, fanova
from nas.analysis.ped_anova import Codes, ped_anova, top
from nas.analysis.scores import complete_rows, ways_of
from nas.errors import InputError
from nas.types import FloatArray

METHODS = ("ped-anova", "fanova")
FEWEST = 4  # complete trials; below nothing can be told apart
WANTED = 5  # of the best share: with fewer PED-ANOVA is a guess (Optuna's documentation)
QUANTILE = 0.1
ENDS = (0.025, 0.975)
MOST = 1_000  # trials of a resample of fANOVA, for time
SMALL_FOREST = 16  # trees of a resample


@dataclass(frozen=True)
class Sample:
    """The trials that an importance rests on.

    Attributes:
        decisions: their names.
        choices: of each decision.
        codes: ``(n, d)``: the number of each trial's choice, -1 where it has none.
        losses: ``(n,)``, smaller is better.
    """

    decisions: Sequence[str]
    choices: Sequence[Sequence[Any]]
    codes: Codes
    losses: FloatArray

    @property
    def sizes(self) -> Codes:
        """``(d,)``: how many choices each decision has."""
        return np.array([len(own) for own in self.choices], dtype=int)


def importance(
    table: pd.DataFrame,
    score: str | None = None,
    *,
    decisions: Sequence[str] | None = None,
    method: str = "ped-anova",
    resamples: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """Return one row a decision, the most important first.

    Trials that did not complete, or have no finite value of the score, are left out: what makes
    trials fail is not seen here, and a choice that mostly fails looks rarer than it is.

    Args:
        table: of :func:`nas.analysis.load_table`.
        score: which; None takes the first objective.
        decisions: which; None takes all.
        method: ``ped-anova`` (which decisions tell the best tenth from all) or ``fanova`` (which
            decisions explain the variance of the score, by a random forest).
        resamples: how often the trials are drawn again, with replacement, for the intervals; 0
            gives none.
        seed: of those draws, and of the forest.

    Returns:
        Columns ``decision``, ``importance`` (they sum to 1), ``low`` and ``high`` (95 % of the
        resamples lie between, stretched to hold the importance) and ``n``, the trials that have the
        decision. A decision with one choice has 0. NaN where nothing can be said; then, and where
        there is a doubt, ``attrs["notes"]`` says why. ``attrs`` also holds ``score``,
        ``direction``, ``method``, ``resamples`` and ``left_out`` (why -> how many trials).

    Raises:
        InputError: no such score, decision or method.
    """
    if method not in METHODS:
        raise InputError(f"--method: expected {' or '.join(METHODS)}, got {method!r}")
    if resamples < 0:
        raise InputError(f"resamples: expected 0 or more, got {resamples}")
    names = _decisions(table, decisions)
    name, way = next(iter(ways_of(table, score).items()))
    if name in names:
        raise InputError(f"expected a score, got the decision {name!r}")
    rows, left_out = _scored(table, name)
    sample = sample_of(table, rows, names, rows[name].to_numpy(float) * (-1 if way == "max" else 1))
    notes = _notes(sample, left_out, method)
    if method == "fanova":
        values, drawn, more = _fanova(sample, resamples, seed)
        notes += more
    else:
        values, drawn = _ped_anova(sample, resamples, seed)
    found = _frame(sample, values, drawn)
    found.attrs = {
        "score": name,
        "direction": way,
        "method": method,
        "resamples": resamples,
        "left_out": left_out,
        "notes": notes,
    }
    return found


def sample_of(
    table: pd.DataFrame, rows: pd.DataFrame, names: Sequence[str], losses: FloatArray
) -> Sample:
    """Return what importance needs of some rows of a table.

    A choice that is None stands in a table as what is missing does; where a decision has such a
    choice, what is missing is that.
    """
    every = table.attrs.get("choices", {})
    choices, columns = [], []
    for name in names:
        present = rows[name].dropna()
        own = list(every.get(name) or sorted(present.unique(), key=lambda c: (str(type(c)), c)))
        where = {choice: i for i, choice in enumerate(own) if choice is not None}
        absent = own.index(None) if None in own else -1
        own += [choice for choice in present.unique() if choice not in where]
        where = {choice: i for i, choice in enumerate(own) if choice is not None}
        columns.append([absent if pd.isna(v) else where[v] for v in rows[name].tolist()])
        choices.append(own)
    codes = np.array(columns, dtype=int).reshape(len(names), len(rows)).T
    return Sample(list(names), choices, codes, losses)


def resampled(
    sample: Sample,
    resamples: int,
    seed: int,
    found: Callable[[Sample, int], FloatArray],
    most: int | None = None,
) -> FloatArray:
    """Return ``(resamples, d)``: what is found of trials that are drawn with replacement.

    Args:
        sample: the trials.
        resamples: how often.
        seed: of the draws.
        found: called with the drawn trials and a seed.
        most: how many trials are drawn at most.
    """
    rng = np.random.default_rng(seed)
    n = len(sample.losses)
    size = n if most is None else min(n, most)
    drawn = []
    for _ in range(resamples):
        rows = rng.integers(n, size=size)
        again = replace(sample, codes=sample.codes[rows], losses=sample.losses[rows])
        drawn.append(found(again, int(rng.integers(2**31))))
    return np.array(drawn).reshape(resamples, len(sample.decisions))


def varies(sample: Sample) -> bool:
    """Whether there are enough trials, and two of them differ in their score."""
    return len(sample.losses) >= FEWEST and bool((sample.losses != sample.losses[0]).any())


# ------------------------------------------------------------------------------------------- parts


def _decisions(table: pd.DataFrame, asked: Sequence[str] | None) -> list[str]:
    known = [name for name in table.attrs.get("decisions", []) if name in table]
    if asked is None:
        if not known and len(table):
            raise InputError("expected decisions: the table says of none")
        return known
    if unknown := [n for n in asked if n not in table or (known and n not in known)]:
        raise InputError(f"expected decisions ({', '.join(known)}), got {unknown}")
    return list(asked)


def _scored(table: pd.DataFrame, score: str) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return the complete trials with a finite score, and why -> how many others there are."""
    single = table[table["repeat_of"].isna()] if "repeat_of" in table else table
    counts = single["status"].astype(str).value_counts()
    left_out = {str(s): int(n) for s, n in counts.items() if s != "complete" and n}
    rows = complete_rows(table)
    finite = np.isfinite(rows[score].to_numpy(dtype=float, na_value=np.nan))
    if unscored := int((~finite).sum()):
        left_out["without the score"] = unscored
    return rows[finite], left_out


def _notes(sample: Sample, left_out: dict[str, int], method: str) -> list[str]:
    n = len(sample.losses)
    notes = []
    if left_out:
        told = ", ".join(f"{count} {why}" for why, count in left_out.items())
        failed = set(left_out) - {"running", "stopped"}
        unseen = "; what makes trials fail is not seen here" if failed else ""
        notes.append(f"left out: {told}{unseen}")
    if n < FEWEST:
        return [*notes, f"too few trials: expected at least {FEWEST} complete ones, got {n}"]
    if not varies(sample):
        return [*notes, "the score is the same in every trial: nothing to explain"]
    single = [d for d, own in zip(sample.decisions, sample.choices, strict=True) if len(own) < 2]
    if single:
        notes.append(f"one choice only, so no importance: {', '.join(single)}")
    some = (sample.codes < 0).any(axis=0)
    if some.any():
        partly = ", ".join(np.array(sample.decisions)[some])
        notes.append(f"not asked in every trial: {partly}")
    best = int(top(sample.losses, QUANTILE).sum())
    if method == "ped-anova" and best < WANTED:
        notes.append(f"the best tenth is {best} of {n} trials, a guess below {WANTED}")
    if method == "ped-anova" and best == n:
        notes.append("the best tenth is all trials, as most have the best score: no importance")
    return notes


def _ped_anova(sample: Sample, resamples: int, seed: int) -> tuple[FloatArray, FloatArray]:
    def found(drawn: Sample, _: int) -> FloatArray:
        return ped_anova(drawn.codes, drawn.sizes, drawn.losses, QUANTILE)

    if not varies(sample) or not len(sample.decisions):
        return np.full(len(sample.decisions), np.nan), np.empty((0, len(sample.decisions)))
    return found(sample, 0), resampled(sample, resamples, seed, found)


def _fanova(sample: Sample, resamples: int, seed: int) -> tuple[FloatArray, FloatArray, list[str]]:
    """Return the importances, those of resamples, and notes; NaN of what some trials lack."""
    asked = np.flatnonzero((sample.codes >= 0).all(axis=0))
    missing = np.full(len(sample.decisions), np.nan)
    if not varies(sample) or not len(asked):
        return missing, np.empty((0, len(missing))), []
    notes = []
    if len(asked) < len(missing):
        notes.append("fanova: a decision that some trials lack has no importance")
    order = sorted(asked.tolist(), key=lambda i: sample.decisions[i])  # as Optuna's forest has them
    sizes = sample.sizes[order]
    part = replace(sample, codes=sample.codes[:, order])
    if len(part.losses) > MOST and resamples:
        notes.append(f"intervals: resamples of {MOST} of {len(part.losses)} trials, so too wide")

    def forest(drawn: Sample, own: int, trees: int = SMALL_FOREST) -> FloatArray:
        found = missing.copy()
        found[order] = fanova(drawn.codes, sizes, drawn.losses, seed=own, trees=trees)
        return found

    return forest(part, seed, TREES), resampled(part, resamples, seed, forest, most=MOST), notes


def _frame(sample: Sample, values: FloatArray, drawn: FloatArray) -> pd.DataFrame:
    """Return the rows, the most important first; of equals as they stand in the table."""
    known = drawn[~np.isnan(drawn).all(axis=1)]
    low = high = np.full(len(values), np.nan)
    if len(known) and len(values):
        low, high = np.quantile(known, ENDS, axis=0)
        low, high = np.minimum(low, values), np.maximum(high, values)
    frame = pd.DataFrame(
        {
            "decision": pd.Series(list(sample.decisions), dtype="string"),
            "importance": values.astype(float),
            "low": low,
            "high": high,
            "n": (sample.codes >= 0).sum(axis=0),
        }
    )
    return frame.sort_values("importance", ascending=False, kind="stable", ignore_index=True)
