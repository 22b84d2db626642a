"""Every sampler keeps the same promises, alone in an Optuna study."""

from __future__ import annotations

import optuna
import pytest

from nas.samplers.registry import SAMPLERS

DECISIONS = {"a": (1, 2, 3), "b": ("x", "y"), "c": (0.5, 1.5)}
every_sampler = pytest.mark.parametrize("name", SAMPLERS)


def propose(name, study, number):
    study.sampler = SAMPLERS[name](DECISIONS, 1000 + number)
    trial = study.ask()
    return trial, {n: trial.suggest_categorical(n, c) for n, c in DECISIONS.items()}


def reward(params):
    return params["a"] + params["c"] - (params["b"] == "x")


@every_sampler
@pytest.mark.parametrize("objectives", [1, 2])
def test_proposals_are_choices_and_decided_by_seed_and_ledger(name, objectives):
    def sequence():
        study = optuna.create_study(directions=["maximize"] * objectives)
        found = []
        for number in range(15):
            trial, params = propose(name, study, number)
            assert all(params[n] in c for n, c in DECISIONS.items())
            study.tell(trial, [reward(params), params["a"]][:objectives])
            found.append(params)
        return found

    first = sequence()
    assert first == sequence()
    assert len({tuple(p.values()) for p in first}) > 3


@every_sampler
def test_failures_and_running_trials_are_tolerated(name):
    study = optuna.create_study(direction="maximize")
    for number in range(12):
        trial, params = propose(name, study, number)
        if number % 3 == 0:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        elif number % 3 == 1:
            study.tell(trial, reward(params))
    propose(name, study, 12)


def test_grid_visits_everything_once_whatever_the_order_of_answers():
    study = optuna.create_study()
    asked = [propose("grid", study, n) for n in range(12)]
    assert len({tuple(params.values()) for _, params in asked}) == 12
    assert [p["c"] for _, p in asked[:4]] == [0.5, 1.5, 0.5, 1.5]


def test_a_grid_of_a_list_goes_through_it_for_each_choice_of_the_rest():
    only = [{"a": 3, "b": "x"}, {"a": 1, "b": "y"}]
    study = optuna.create_study(sampler=SAMPLERS["grid"](DECISIONS, 0, only=only))
    asked = []
    for _ in range(4):
        trial = study.ask()
        asked.append({n: trial.suggest_categorical(n, c) for n, c in DECISIONS.items()})
    assert asked == [{**of, "c": c} for c in DECISIONS["c"] for of in only]
    assert study.sampler.size == 4


@pytest.mark.parametrize(
    ("only", "message"),
    [
        ([], "one or more"),
        ([{"a": 1}, {"b": "x"}], "answers to a each time"),
        ([{"z": 1}], "decisions among a, b, c, got 'z'"),
        ([{"a": 9}], "a as one of"),
    ],
)
def test_a_list_that_a_grid_cannot_take_is_refused(only, message):
    with pytest.raises(ValueError, match=message):
        SAMPLERS["grid"](DECISIONS, 0, only=only)


def test_tpe_and_nsga2_beat_random():
    """Mean reward of proposals 30 to 60, five studies each; the optimum is 4.5."""

    def late_mean(name):
        rewards = []
        for repeat in range(5):
            study = optuna.create_study(direction="maximize")
            for number in range(60):
                trial, params = propose(name, study, number + 1000 * repeat)
                study.tell(trial, reward(params))
                rewards += [reward(params)] * (number >= 30)
        return sum(rewards) / len(rewards)

    baseline = late_mean("random")
    assert late_mean("tpe") > baseline + 0.3
    assert late_mean("nsga2") > baseline + 0.3
