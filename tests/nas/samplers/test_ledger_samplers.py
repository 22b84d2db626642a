"""Our own samplers: what they promise beyond test_samplers.py, alone and in any study."""

from __future__ import annotations

import itertools
import pickle
import warnings

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from nas.samplers.base import LedgerSampler, scalarise
from nas.samplers.decisions import Decisions
from nas.samplers.evolution import EvolutionSampler
from nas.samplers.gaussian import Inputs, fit
from nas.samplers.local_search import LocalSearchSampler
from nas.samplers.predictor import PredictorSampler
from nas.samplers.registry import SAMPLERS

DECISIONS = {"a": (0, 1, 2, 3), "b": ("x", "y", "z"), "c": (False, True), "d": (0.5, 1.5, 2.5)}
OURS = [n for n, make in SAMPLERS.items() if isinstance(make(DECISIONS, 0), LedgerSampler)]
every_one_of_ours = pytest.mark.parametrize("name", OURS)


def reward(params):
    """Return 8 for the one optimum (3, y, True, 2.5); b and c matter together."""
    return params["a"] + 2 * ((params["b"] == "y") and params["c"]) + 1.2 * params["d"]


def ask(study, decisions=DECISIONS):
    trial = study.ask()
    return trial, {n: trial.suggest_categorical(n, c) for n, c in decisions.items()}


def run(study, n, *, open_at_a_time=1, seed=0):
    """Run ``n`` trials, several open, ended in random order, every seventh a failure."""
    rng = np.random.default_rng(seed)
    going, found = [], []
    while len(found) < n or going:
        if len(found) < n and len(going) < open_at_a_time:
            trial, params = ask(study)
            going.append((trial, params))
            found.append(params)
            continue
        trial, params = going.pop(rng.integers(len(going)))
        if trial.number % 7 == 3:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, reward(params))
    return found


@every_one_of_ours
def test_a_restarted_sampler_proposes_what_an_unbroken_one_would(name, tmp_path):
    """Workers out of order, failures; the ledger is read back from its file."""
    path = str(tmp_path / "journal")
    backend = optuna.storages.journal.JournalFileBackend(path)
    study = optuna.create_study(
        study_name="s",
        storage=optuna.storages.JournalStorage(backend),
        direction="maximize",
        sampler=SAMPLERS[name](DECISIONS, 5),
    )
    run(study, 40, open_at_a_time=4)
    left, _ = ask(study)  # runs while the driver dies
    again = optuna.load_study(
        study_name="s",
        storage=optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(path)),
        sampler=SAMPLERS[name](DECISIONS, 5),
    )
    number = left.number + 1
    unbroken = study.sampler.sample_relative(study, trial_numbered(number), DECISIONS)
    restarted = again.sampler.sample_relative(again, trial_numbered(number), DECISIONS)
    assert unbroken == restarted
    if name == "predictor":
        return  # the best of all is the best for every seed
    other = SAMPLERS[name](DECISIONS, 6)
    drawn = [other.sample_relative(again, trial_numbered(number + i), DECISIONS) for i in range(5)]
    assert any(params != unbroken for params in drawn)


def trial_numbered(number):
    return optuna.trial.FrozenTrial(
        number=number,
        state=TrialState.RUNNING,
        value=None,
        datetime_start=None,
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
        trial_id=number,
    )


@every_one_of_ours
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_it_serves_a_study_that_somebody_else_began(name, direction):
    """No decisions given: those that all trials share; other parameters are drawn beside them."""
    study = optuna.create_study(direction=direction, sampler=optuna.samplers.RandomSampler(seed=1))

    def objective(trial):
        params = {n: trial.suggest_categorical(n, c) for n, c in DECISIONS.items()}
        rate = trial.suggest_float("rate", 0.1, 1.0, log=True)
        sign = 1 if direction == "maximize" else -1
        return sign * (reward(params) - 0.01 * rate)

    study.optimize(objective, n_trials=25)
    study.sampler = type(SAMPLERS[name](DECISIONS, 0))(seed=3)
    study.optimize(objective, n_trials=25)
    assert all(0.1 <= t.params["rate"] <= 1 for t in study.trials)
    assert len({t.params["rate"] for t in study.trials[25:]}) == 25


@every_one_of_ours
def test_it_finds_more_than_random(name):
    """The best of 60 proposals, 6 decisions of 5, mean of six studies: 24 is the optimum.

    Three studies of the predictor, whose every proposal takes a tenth of a second.
    """
    decisions = {f"d{i}": tuple(range(5)) for i in range(6)}

    def mean_best(sampler):
        bests = []
        for seed in range(3 if sampler == "predictor" else 6):
            made = SAMPLERS[sampler](decisions, seed)
            study = optuna.create_study(direction="minimize", sampler=made)
            for _ in range(60):
                trial, params = ask(study, decisions)
                study.tell(trial, -float(sum(params.values())))
            bests.append(-study.best_value)
        return np.mean(bests)

    assert mean_best(name) > mean_best("random") + (0.5 if name == "reinforce" else 2)


@pytest.mark.parametrize("name", ["evolution", "local-search", "predictor"])
def test_nothing_is_proposed_twice_while_something_is_new(name):
    study = optuna.create_study(direction="maximize", sampler=SAMPLERS[name](DECISIONS, 2))
    found = run(study, 72, open_at_a_time=3)
    assert len({tuple(p.values()) for p in found}) == 72 == Decisions(DECISIONS).size()
    ask(study)  # all is known: it still answers


@pytest.mark.parametrize("name", ["evolution", "local-search", "predictor"])
def test_a_key_makes_two_proposals_one(name):
    """Where c plays no part, half of the combinations are left."""
    decisions = Decisions(DECISIONS, key=lambda p: f"{p['a']} {p['b']} {p['d']}")
    assert len(decisions.everything()) == 36
    study = optuna.create_study(direction="maximize", sampler=SAMPLERS[name](decisions, 2))
    keys = []
    for _ in range(36):
        trial, params = ask(study)
        study.tell(trial, reward({**params, "c": True}))
        keys.append(decisions.key(params))
    assert len(set(keys)) == 36


def test_the_old_die():
    """The optimum, once it is older than the population, has no more children."""
    study = optuna.create_study(direction="maximize")
    best = {"a": 3, "b": "y", "c": True, "d": 2.5}
    worst = {"a": 0, "b": "x", "c": False, "d": 0.5}
    for params in [best, *[worst] * 4]:
        study.add_trial(finished(params))
    for size, parent in ((5, best), (4, worst)):
        study.sampler = EvolutionSampler(DECISIONS, 0, population_size=size, tournament_size=size)
        child = study.sampler.sample_relative(study, trial_numbered(5), DECISIONS)
        assert sum(child[n] != parent[n] for n in DECISIONS) == 1


def finished(params, value=None):
    return optuna.trial.create_trial(
        params=params,
        distributions={
            n: optuna.distributions.CategoricalDistribution(c) for n, c in DECISIONS.items()
        },
        value=reward(params) if value is None else value,
    )


def test_local_search_goes_round_the_best_before_the_next():
    study = optuna.create_study(direction="maximize", sampler=LocalSearchSampler(DECISIONS, 0))
    centre = {"a": 1, "b": "y", "c": True, "d": 1.5}
    rest = [dict(zip(DECISIONS, p, strict=True)) for p in itertools.product(*DECISIONS.values())]
    for params in rest[:10]:
        study.add_trial(finished(params, 0.0))
    study.add_trial(finished(centre, 9.0))
    around = {tuple(n.values()) for n in Decisions(DECISIONS).neighbours(centre)}
    already = {tuple(p.values()) for p in rest[:10]}
    found = set()
    for _ in range(len(around - already)):
        trial, params = ask(study)
        study.tell(trial, 1.0)
        found.add(tuple(params.values()))
    assert found == around - already
    _, params = ask(study)
    assert tuple(params.values()) not in around


def test_gaussian_processes_repeat_the_textbook():
    """Mean and deviation of one process against the dense formulas; noise below what is seen."""
    rng = np.random.default_rng(0)
    codes, features = rng.integers(0, 3, (12, 4)), rng.normal(size=(12, 2))
    scores = rng.normal(size=12)
    ensemble = fit(Inputs(codes[:8], features[:8]), scores[:8])
    weights = []
    for (weight, mean, deviation), scale in zip(
        ensemble.predict(Inputs(codes[8:], features[8:])), ensemble._members, strict=True
    ):
        weights.append(weight)
        hamming = (codes[:, None] != codes[None]).mean(axis=2)
        squared = ((features[:, None] - features[None]) ** 2).sum(axis=2)
        squared /= squared[:8, :8].mean()
        k = scale.weight * np.exp(-hamming / scale.share)
        k += (1 - scale.weight) * np.exp(-squared / scale.spread)
        inverse = np.linalg.inv(k[:8, :8] + scale.noise * np.eye(8))
        variance = scores[:8] @ inverse @ scores[:8] / 8
        assert mean == pytest.approx(k[8:, :8] @ inverse @ scores[:8])
        left = 1 - np.einsum("ij,jk,ik->i", k[8:, :8], inverse, k[8:, :8])
        assert deviation == pytest.approx(np.sqrt(left * variance))
    assert sum(weights) == pytest.approx(1)
    assert weights == sorted(weights, reverse=True)


def test_what_runs_is_not_tried_by_another_worker_too():
    """With the best neighbourhood in progress, the expected gain there is smaller."""
    codes = np.random.default_rng(1).integers(0, 3, (20, 4))
    scores = (codes.sum(axis=1) - codes.sum(axis=1).mean()) / codes.sum(axis=1).std()
    inputs = Inputs(codes, np.empty((20, 0)))
    running = Inputs(np.array([[0, 1, 2, 0]]), np.empty((1, 0)))
    ensemble = fit(inputs, scores)
    before = [d for _, _, d in ensemble.predict(running)]
    after = [d for _, _, d in ensemble.believing(running).predict(running)]
    assert all(a[0] < 0.75 * b[0] for a, b in zip(after, before, strict=True))


def test_the_predictor_climbs_where_the_space_is_too_large_to_list():
    """12 decisions of 5: 2e8 combinations, additive, the mean of random is 24 and the best 48."""
    decisions = {f"d{i}": tuple(range(5)) for i in range(12)}
    study = optuna.create_study(direction="maximize", sampler=PredictorSampler(decisions, 0))
    found = []
    for _ in range(60):
        trial, params = ask(study, decisions)
        found.append(sum(params.values()))
        study.tell(trial, found[-1])
    assert max(found[:10]) < 38
    assert max(found) >= 44


def test_the_predictor_looks_at_the_best_and_the_latest():
    sampler = PredictorSampler(DECISIONS, 0, initial=2, observations=4)
    fitness = np.array([5.0, 1.0, 9.0, 2.0, 3.0, 0.0])
    assert sampler._looked_at(fitness) == [0, 2, 4, 5]
    assert sampler._looked_at(fitness[:4]) == [0, 1, 2, 3]


def test_scalarise_reaches_the_whole_front_and_nothing_dominated():
    values = np.array([[0.0, 1.0], [0.6, 0.7], [1.0, 0.0], [0.5, 0.6], [0.0, 0.9]])
    rng = np.random.default_rng(0)
    best = {int(np.argmax(scalarise(values, rng.dirichlet([1, 1])))) for _ in range(200)}
    assert best == {0, 1, 2}
    one = np.array([[3.0], [-1.0]])
    assert scalarise(one, np.array([1.0])).tolist() == [3, -1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EvolutionSampler(population_size=3, tournament_size=4), "tournament_size"),
        (lambda: LocalSearchSampler(initial=0), "initial"),
        (lambda: PredictorSampler(initial=1), "initial"),
        (lambda: PredictorSampler(initial=10, observations=9), "observations"),
        (lambda: Decisions({"a": ()}), "'a'"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@every_one_of_ours
def test_it_is_pickled_as_other_samplers_are(name):
    """With what it has learned or without: the ledger gives that back."""
    study = optuna.create_study(direction="maximize", sampler=SAMPLERS[name](DECISIONS, 4))
    run(study, 30)
    study.sampler = pickle.loads(pickle.dumps(type(study.sampler)(DECISIONS, 4)))
    run(study, 5)
    again = pickle.loads(pickle.dumps(study.sampler))
    expected = study.sampler.sample_relative(study, trial_numbered(35), DECISIONS)
    assert again.sample_relative(study, trial_numbered(35), DECISIONS) == expected


@every_one_of_ours
def test_threads_and_trials_that_never_answer(name):
    """Study.optimize with several jobs, some of which fail before they ask anything."""
    sampler = type(SAMPLERS[name](DECISIONS, 0))(DECISIONS, seed=1)
    study = optuna.create_study(direction="maximize", sampler=sampler)

    def objective(trial):
        if trial.number % 5 == 2:
            raise ArithmeticError
        return reward({n: trial.suggest_categorical(n, c) for n, c in DECISIONS.items()})

    study.optimize(objective, n_trials=40, n_jobs=4, catch=ArithmeticError)
    assert len(study.trials) == 40
    assert all(t.state.is_finished() for t in study.trials)
    run(study, 3)
    assert len(sampler._history.running()) == 0


@every_one_of_ours
def test_a_pruner_that_shows_a_part_of_the_study_is_no_obstacle(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        pruner = optuna.pruners.HyperbandPruner(max_resource=9)
    made = SAMPLERS[name](DECISIONS, 0)
    study = optuna.create_study(direction="maximize", sampler=made, pruner=pruner)

    def objective(trial):
        params = {n: trial.suggest_categorical(n, c) for n, c in DECISIONS.items()}
        for step in range(1, 10):
            trial.report(reward(params) * step, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return reward(params)

    study.optimize(objective, n_trials=30)
    assert {t.state for t in study.trials} == {TrialState.COMPLETE, TrialState.PRUNED}


@every_one_of_ours
def test_a_foreign_trial_with_another_choice_is_left_out(name):
    study = optuna.create_study(direction="maximize", sampler=SAMPLERS[name](DECISIONS, 0))
    wider = {**DECISIONS, "a": (*DECISIONS["a"], 7)}
    study.add_trial(
        optuna.trial.create_trial(
            params={"a": 7, "b": "y", "c": True, "d": 2.5},
            distributions={
                n: optuna.distributions.CategoricalDistribution(c) for n, c in wider.items()
            },
            value=100.0,
        )
    )
    sampler = study.sampler
    for number in range(1, 40):
        params = sampler.sample_relative(study, trial_numbered(number), DECISIONS)
        assert all(params[n] in c for n, c in DECISIONS.items())
        study.add_trial(finished(params))


def test_equal_scores_leave_the_predictor_to_chance():
    study = optuna.create_study(direction="maximize", sampler=PredictorSampler(DECISIONS, 0))
    found = []
    for _ in range(20):
        trial, params = ask(study)
        study.tell(trial, 0.1)
        found.append(params)
    assert all(len({p[n] for p in found[10:]}) > 1 for n in DECISIONS)


@every_one_of_ours
def test_an_infinite_value_counts_as_none(name):
    """With several objectives too, where one infinity would swallow every other number."""
    study = optuna.create_study(
        directions=["minimize", "maximize"], sampler=SAMPLERS[name](DECISIONS, 0)
    )
    for _ in range(40):
        trial, params = ask(study)
        bad = params["b"] == "z"
        study.tell(trial, [float("-inf") if bad else -reward(params), float(params["a"])])
    assert len(study.sampler._history.scored) == sum(t.params["b"] != "z" for t in study.trials) - (
        study.trials[-1].params["b"] != "z"
    )
    for seen in study.sampler._history.scored:
        assert np.isfinite(seen.values).all()


@every_one_of_ours
def test_what_is_no_decision_is_drawn_from_seed_and_number(name):
    """A restart does not draw the numbers of the first trials again."""

    def rates(study, n):
        found = []
        for _ in range(n):
            trial, params = ask(study)
            found.append((trial.suggest_float("rate", 0, 1), trial.suggest_int("width", 1, 99)))
            study.tell(trial, reward(params))
        return found

    study = optuna.create_study(direction="maximize", sampler=SAMPLERS[name](DECISIONS, 3))
    first = rates(study, 4)
    study.sampler = SAMPLERS[name](DECISIONS, 3)
    later = rates(study, 4)
    assert len({*first, *later}) == 8
    whole = optuna.create_study(direction="maximize", sampler=SAMPLERS[name](DECISIONS, 3))
    assert rates(whole, 8) == first + later


def test_decisions_are_pickled_with_what_a_search_knows_of_them():
    decisions = Decisions(DECISIONS, key=first_letter, features=shout)
    decisions.everything_encoded()
    again = pickle.loads(pickle.dumps(decisions))
    assert again == decisions
    assert again.key({"a": 1, "b": "y", "c": True, "d": 0.5}) == "1"
    assert again.everything_encoded().names() == ("loud",)
    assert pickle.loads(pickle.dumps(EvolutionSampler(again, 1)))._given == decisions


def first_letter(params):
    return str(params["a"])


def shout(params):
    return {"loud": float(params["c"])}
