"""What a stopped trial is expected to come to, from those that ended."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState

from nas.ledger.results import RESULT
from nas.samplers.decisions import Decisions
from nas.samplers.fidelity import expected
from nas.samplers.history import History
from nas.samplers.predictor import PredictorSampler, _tried

DECISIONS = Decisions({"a": tuple(range(6)), "b": tuple(range(6))})


def trial(number, rungs, values=None, state=TrialState.COMPLETE, *, ours=True, status="stopped"):
    """Return a trial with what it had at its rungs, in our ledger or as Optuna's reports."""
    params = {"a": number % 6, "b": number // 6}
    status = "complete" if state is TrialState.COMPLETE else status
    result = {"status": status, "rungs": {str(e): {"accuracy": v} for e, v in rungs.items()}}
    return optuna.trial.create_trial(
        params=params,
        distributions={n: CategoricalDistribution(c) for n, c in DECISIONS.items()},
        values=values,
        state=state,
        user_attrs={RESULT: result} if ours else {},
        intermediate_values={} if ours else rungs,
    )


def history(trials, directions):
    study = optuna.create_study(directions=directions)
    for each in trials:
        study.add_trial(each)
    found = History(DECISIONS)
    found.read(study, len(trials))
    return found


@pytest.mark.parametrize("ours", [True, False])
def test_a_stopped_trial_is_expected_to_go_on_as_the_others_did(ours):
    """Ended trials came to twice what they had at epoch 3, plus 1; objectives are minimised."""
    ended = [trial(i, {1: 0.0, 3: 0.1 * i}, [1 + 0.2 * i], ours=ours) for i in range(8)]
    stopped = trial(20, {1: 0.0, 3: 0.25}, state=TrialState.PRUNED, ours=ours)
    found = expected(history([*ended, stopped], ["minimize"]))
    assert found == {8: pytest.approx([-1.5])}


def test_it_stays_within_what_the_ended_came_to():
    ended = [trial(i, {3: 0.1 * i}, [0.2 * i]) for i in range(5)]
    stopped = trial(20, {3: -9.0}, state=TrialState.PRUNED)
    assert expected(history([*ended, stopped], ["maximize"])) == {5: [0.0]}


def test_several_objectives_are_expected_each_from_the_rung():
    ended = [trial(i, {2: 0.1 * i}, [0.3 * i, 5 - i]) for i in range(6)]
    stopped = trial(20, {2: 0.35}, state=TrialState.FAIL)
    found = expected(history([*ended, stopped], ["maximize", "maximize"]))
    assert found == {6: pytest.approx([1.05, 1.5])}


def test_too_few_comparisons_make_it_the_worst_and_failures_are_left_out():
    ended = [trial(i, {2: 0.1 * i} if i < 3 else {}, [3.0 + i]) for i in range(6)]
    stopped = trial(20, {2: 0.9}, state=TrialState.PRUNED)
    failed = trial(21, {}, state=TrialState.FAIL)
    assert expected(history([*ended, stopped, failed], ["maximize"])) == {6: [3.0]}


def test_the_predictor_turns_away_from_where_trials_are_stopped():
    """The ended say nothing about a; six stopped ones say that a = 0 is bad and a = 5 is good."""
    ended = [trial(6 * b + 2, {1: 0.1 * b}, [0.1 * b]) for b in range(6)]
    ended += [trial(6 * b + 3, {1: 0.1 * b}, [0.1 * b]) for b in range(6)]
    stopped = [
        trial(6 * b + a, {1: value}, state=TrialState.PRUNED)
        for a, value in ((0, 0.0), (5, 0.49)) for b in (0, 2, 4)
    ]  # fmt: skip
    study = optuna.create_study(direction="maximize")
    for each in [*ended, *stopped]:
        study.add_trial(each)
    study.sampler = PredictorSampler(DECISIONS, 0)
    proposed = [study.ask(dict(stopped[0].distributions)).params["a"] for _ in range(3)]
    assert 0 not in proposed
    assert 5 in proposed
    found = expected(history([*ended, *stopped], ["maximize"]))
    assert list(found) == [12, 13, 14, 15, 16, 17]
    assert np.isfinite(list(found.values())).all()


def test_what_diverged_is_expected_nothing_of():
    ended = [trial(i, {3: 0.1 * i}, [0.2 * i]) for i in range(5)]
    diverged = trial(20, {3: 0.9}, state=TrialState.FAIL, status="diverged")
    assert expected(history([*ended, diverged], ["maximize"])) == {}


def test_a_trial_that_ended_at_infinity_is_not_expected_to_do_well():
    ended = [trial(i, {3: 0.1 * i}, [0.2 * i], ours=False) for i in range(5)]
    infinite = trial(20, {3: 0.9}, [float("-inf")], ours=False)
    assert expected(history([*ended, infinite], ["maximize"])) == {}


def test_trials_stopped_at_several_rungs_are_each_judged_there():
    ended = [trial(i, {1: -0.1 * i, 3: 0.1 * i}, [0.2 * i]) for i in range(5)]
    early = trial(20, {1: -0.15}, state=TrialState.PRUNED)
    late = trial(21, {1: 0.0, 3: 0.25}, state=TrialState.PRUNED)
    found = expected(history([*ended, early, late], ["maximize"]))
    assert found == {5: pytest.approx([0.3]), 6: pytest.approx([0.5])}


def test_the_predictor_takes_trials_in_the_order_in_which_they_ended():
    """A stopped trial between two that ended stands there, not behind them."""
    ended = [trial(i, {1: 0.1 * i}, [0.1 * i]) for i in range(8)]
    stopped = trial(20, {1: 0.35}, state=TrialState.PRUNED)
    in_order = [*ended[:5], stopped, *ended[5:]]
    for each, second in zip(in_order, range(9), strict=True):
        each.datetime_complete = datetime(2026, 1, 1, second=second)
    tried = _tried(history(in_order, ["maximize"]))
    values = [value[0] for _, value in tried.values()]
    assert values == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.35, 0.5, 0.6, 0.7])
