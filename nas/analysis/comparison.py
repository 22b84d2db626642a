"""Whether one search, sampler or setting is better than another, and how sure that is.

Paired where there is something to pair by: the same architecture under two settings, or two
samplers under the same seeds. What is subtracted then is what both share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from nas.analysis.front import named_point
from nas.analysis.means import chance, paired, skewed, unpaired
from nas.analysis.sides import (
    Side,
    common_objectives,
    common_score,
    equal_trials,
    named,
    of_architectures,
    of_runs,
    of_seeds,
    of_trials,
    pairs_of,
    runs_of,
    scored,
    seeds_of,
    table_of_side,
    values_of_runs,
    volumes_of_runs,
    worst_of,
)
from nas.errors import InputError
from nas.types import FloatArray

BY = ("architecture", "seed", "none")
OF = ("trials", "best", "hypervolume")


@dataclass(frozen=True)
class Comparison:
    """A difference between two sides, the first less the second.

    Attributes:
        score: what was compared; the objectives, with commas, of a hypervolume.
        direction: which way is better.
        of: ``trials``, ``best`` or ``hypervolume``.
        by: ``architecture``, ``seed`` or ``none``.
        n_a, n_b: numbers on either side: of pairs their number.
        trials: how many trials of each run counted, where the best of a run is compared.
        a, b: the means.
        difference, low, high: of the means, with its 95 % interval; NaN where there is none.
        p: of no difference, two-sided.
        share: of the pairs, or of all pairings, in which ``a`` is better; ties count half.
        needed: pairs, or numbers a side, that a claim of this difference would need: with so many,
            80 of 100 repetitions would find it at the 5 % level, if it is as large as it looks.
        better: ``a`` or ``b`` where the interval is on one side of 0, else ``undecided``.
        notes: what to know before believing it.
    """

    score: str
    direction: str
    of: str
    by: str
    n_a: int
    n_b: int
    trials: int | None
    a: float
    b: float
    difference: float
    low: float
    high: float
    p: float
    share: float
    needed: int | None
    better: str
    notes: tuple[str, ...]

    def frame(self) -> pd.DataFrame:
        """Return it as a table of one row; ``notes`` as one text."""
        row = {**asdict(self), "notes": "; ".join(self.notes)}
        whole = {"trials": "Int64", "needed": "Int64"}
        found: pd.DataFrame = pd.DataFrame([row]).astype(whole)
        return found


def compare(
    a: Side,
    b: Side,
    *,
    score: str | None = None,
    by: str | None = None,
    of: str | None = None,
    reference: Sequence[float] | Mapping[str, float] | None = None,
) -> Comparison:
    """Compare two runs, or two samplers with several runs each.

    Args:
        a, b: runs, or tables of them.
        score: what to compare; None takes the first objective.
        by: ``architecture`` pairs the trials of the same architecture (and the same varied recipe
            and data; several of one are averaged), ``seed`` the runs of the same seed, ``none``
            nothing. None takes seeds where two are on both sides, else architectures where three
            are, unless all of them scored the same, else nothing.
        of: ``trials`` compares the means over complete trials, ``best`` what each run had found
            after equally many trials, ``hypervolume`` the volume under the objectives' front
            likewise. None takes trials by architecture, and the best of runs by seed, or where
            both sides have several.
        reference: of the hypervolume; None takes the worst of both sides.

    Raises:
        InputError: a side without a complete trial with the score, nothing to pair, or an unknown
            word.
    """
    _known("--by", by, BY)
    _known("of", of, OF)
    left, right = table_of_side(a), table_of_side(b)
    name, way = common_score(left, right, score)
    for side in (left, right):
        if scored(side, name).empty:
            raise InputError(f"{named(side)}: expected a complete trial with {name}, got none")
    notes: list[str] = []
    by = _by(left, right, name, notes) if by is None else by
    several = min(len(runs_of(left)), len(runs_of(right))) > 1
    of = of or ("trials" if by == "architecture" or (by == "none" and not several) else "best")
    if by == "architecture" and of != "trials":
        raise InputError(f"--by architecture: expected trials to compare, got {of}")
    if of == "trials" and by != "seed":
        numbers = of_architectures if by == "architecture" else of_trials
        first, second = numbers(scored(left, name), scored(right, name), name)
        return _compared(name, way, of, by, None, first, second, notes)
    at = equal_trials(left, right) if of != "trials" else None
    if of == "hypervolume":
        ways = common_objectives(left, right)
        name, way = ", ".join(ways), "max"
        point = worst_of(left, right, ways) if reference is None else named_point(reference, ways)
        one, other = (volumes_of_runs(side, ways, point, at) for side in (left, right))
    else:
        one, other = (values_of_runs(side, name, way, of, at) for side in (left, right))
    first, second = of_seeds(one, other, left, right) if by == "seed" else of_runs(one, other)
    return _compared(name, way, of, by, at, first, second, notes)


# ------------------------------------------------------------------------------------------- parts


def _known(what: str, asked: str | None, known: Sequence[str]) -> None:
    if asked is not None and asked not in known:
        raise InputError(f"{what}: expected {', '.join(known)}, got {asked!r}")


def _by(left: pd.DataFrame, right: pd.DataFrame, name: str, notes: list[str]) -> str:
    """Return what to pair by where nobody said."""
    first, second = (set(seeds_of(side).values()) - {None} for side in (left, right))
    if len(first & second) >= 2:
        return "seed"
    pairs = pairs_of(scored(left, name), scored(right, name), name)
    if len(pairs) >= 3 and (pairs["a"] != pairs["b"]).any():
        return "architecture"
    if len(pairs) >= 3:
        notes.append(
            f"all {len(pairs)} architectures that both sides have scored the same: not paired"
        )
    return "none"


def _compared(
    name: str,
    way: str,
    of: str,
    by: str,
    at: int | None,
    x: FloatArray,
    y: FloatArray,
    notes: Sequence[str],
) -> Comparison:
    pairing = by != "none"
    found = paired(x - y) if pairing else unpaired(x, y)
    sign = 1 if way == "max" else -1
    if pairing:
        share = float((np.sign(sign * (x - y)) / 2 + 0.5).mean()) if len(x) else math.nan
    else:
        share = chance(sign * x, sign * y)
    better = "undecided"
    if found.low > 0 or found.high < 0:
        better = "a" if (found.low > 0) == (way == "max") else "b"
    return Comparison(
        score=name,
        direction=way,
        of=of,
        by=by,
        n_a=len(x),
        n_b=len(y),
        trials=at,
        a=float(x.mean()) if len(x) else math.nan,
        b=float(y.mean()) if len(y) else math.nan,
        difference=found.value,
        low=found.low,
        high=found.high,
        p=found.p,
        share=share,
        needed=found.needed,
        better=better,
        notes=tuple([*notes, *_doubts(x, y, of, by)]),
    )


def _doubts(x: FloatArray, y: FloatArray, of: str, by: str) -> list[str]:
    notes = []
    what = {"architecture": "architectures on both sides", "seed": "seeds on both sides"}
    expected = what.get(by, "trials a side" if of == "trials" else "runs a side")
    fewest = min(len(x), len(y))
    if fewest < 2:
        notes.append(f"no interval: expected at least 2 {expected}, got {fewest}")
    elif by != "none" and np.ptp(x - y) <= 1e-12:
        notes.append(f"no interval: all {len(x)} pairs differ by the same")
    elif fewest < 5:
        notes.append(f"{fewest} {expected} are few: the interval rests on a normal distribution")
    looked = [x - y] if by != "none" else [x, y]
    if skews := [s for s in map(skewed, looked) if s is not None]:
        worst = max(skews, key=abs)
        notes.append(f"skewed ({worst:.1f}): the interval may cover 83 to 94 of 100, not 95")
    if of == "trials" and by == "none":
        notes.append("trials of a sampler that learns are no independent draws: compare seeds")
    return notes
