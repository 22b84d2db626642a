"""What a trial that was stopped early would have come to, judged by those that were not.

Trials that ended have passed the same rungs: a straight line through what they had there and at the
end says what to expect of one that was stopped. It is an estimate, for a predictor to learn from,
and never a score.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from nas.ledger import RESULT
from nas.rungs import reached_rungs
from nas.samplers.base import History, Observation

FloatArray = NDArray[np.float64]

FEWEST = 4  # ended trials with the same rung; below, a stopped one counts as the worst that ended


def expected(history: History) -> list[tuple[Observation, FloatArray]]:
    """Return every stopped trial with the values ``(k,)`` to expect of it.

    Least squares on what the ended trials had at its last rung, kept between the worst and the best
    value of those that ended.
    """
    stopped = [seen for seen in history.finished if seen.values is None and _rungs(seen.trial)]
    if not stopped or not history.scored:
        return []
    values = history.values()
    low, high = values.min(axis=0), values.max(axis=0)
    passed = [_rungs(seen.trial) for seen in history.scored]
    found = []
    for seen in stopped:
        rungs = _rungs(seen.trial)
        epoch = max(rungs)
        names = sorted(rungs[epoch])
        known = [i for i, other in enumerate(passed) if set(names) <= set(other.get(epoch, ()))]
        if len(known) < FEWEST:
            found.append((seen, low))
            continue
        there = np.array([[1.0, *(passed[i][epoch][name] for name in names)] for i in known])
        line = np.linalg.lstsq(there, values[known], rcond=None)[0]
        at = np.array([1.0, *(rungs[epoch][name] for name in names)])
        found.append((seen, np.clip(at @ line, low, high)))
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
