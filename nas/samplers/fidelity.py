"""What a trial that was stopped early would have come to, judged by those that were not.

Trials that ended have passed the same rungs: a straight line through what they had there and at the
end says what to expect of one that was stopped. It is an estimate, for a predictor to learn from,
and never a score.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from nas.ledger.results import RESULT, reached_rungs
from nas.samplers.history import History
from nas.types import FloatArray

FEWEST = 4  # ended trials with the same rung; below, a stopped one counts as the worst that ended


def expected(history: History) -> dict[int, FloatArray]:
    """Return the values ``(k,)`` to expect of every stopped trial, by its number.

    Least squares on what the ended trials had at its last rung, kept between the worst and the best
    value of those that ended.
    """
    stopped = [
        seen
        for seen in history.finished
        if seen.trial.state is not TrialState.COMPLETE and _rungs(seen.trial)
    ]
    if not stopped or not history.scored:
        return {}
    values = history.values()
    low, high = values.min(axis=0), values.max(axis=0)
    passed = [_rungs(seen.trial) for seen in history.scored]
    reached: dict[tuple[int, tuple[str, ...]], list[tuple[int, list[float]]]] = defaultdict(list)
    for seen in stopped:
        epoch, at = max(_rungs(seen.trial).items())
        names = tuple(sorted(at))
        reached[epoch, names].append((seen.trial.number, [at[name] for name in names]))
    found: dict[int, FloatArray] = {}
    for (epoch, names), those in reached.items():
        known = [i for i, rungs in enumerate(passed) if {*names} <= {*rungs.get(epoch, ())}]
        if len(known) < FEWEST:
            found |= {number: low for number, _ in those}
            continue
        there = np.array([[1.0, *(passed[i][epoch][name] for name in names)] for i in known])
        line = np.linalg.lstsq(there, values[known], rcond=None)[0]
        at_rung = np.array([[1.0, *numbers] for _, numbers in those])
        estimates = np.clip(at_rung @ line, low, high)
        found |= {number: value for (number, _), value in zip(those, estimates, strict=True)}
    return found


def _rungs(trial: FrozenTrial) -> Mapping[int, Mapping[str, float]]:
    """Return epoch -> name -> finite value, from our ledger or from Optuna's reports."""
    result = trial.user_attrs.get(RESULT)
    ended = (
        result["status"] in ("complete", "stopped")
        if result is not None
        else (trial.state in (TrialState.COMPLETE, TrialState.PRUNED))
    )
    if not ended:
        return {}  # what diverged says nothing about where it was going
    if result is not None:
        rungs = reached_rungs(result)
    else:
        rungs = {step: {"value": value} for step, value in trial.intermediate_values.items()}
    return {e: v for e, v in rungs.items() if v and np.isfinite(list(v.values())).all()}
