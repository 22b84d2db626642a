"""The policy-gradient controller: what it learns, and that the ledger alone decides it."""

from __future__ import annotations

import importlib
import itertools
from datetime import timedelta

import numpy as np
import optuna
import pytest
import torch
from optuna.trial import TrialState
from torch import nn

from nas.samplers.policy import Policy, of_answers
from nas.samplers.reinforce import ReinforceSampler, advantages

# The package has a function of the same name.
reinforce = importlib.import_module("nas.samplers.reinforce")

SIZES = (4, 5, 4, 5, 4, 5)
DECISIONS = {f"d{i}": tuple(range(size)) for i, size in enumerate(SIZES)}
_rng = np.random.default_rng(7)
MAIN = [_rng.normal(size=size) for size in SIZES]
PAIRS = [_rng.normal(size=pair) for pair in itertools.pairwise(SIZES)]


def toy(params):
    """Return what the choices are worth alone, and each with the next."""
    codes = list(params.values())
    alone = sum(table[code] for table, code in zip(MAIN, codes, strict=True))
    joint = sum(t[pair] for t, pair in zip(PAIRS, itertools.pairwise(codes), strict=True))
    return float(alone + joint)


EVERY = np.array(
    [toy(dict(zip(DECISIONS, c, strict=True))) for c in itertools.product(*DECISIONS.values())]
)


def study_of(sampler, directions=("maximize",), **kwargs):
    return optuna.create_study(directions=list(directions), sampler=sampler, **kwargs)


def ask(study, decisions=DECISIONS):
    trial = study.ask()
    return trial, {n: trial.suggest_categorical(n, c) for n, c in decisions.items()}


def rewards_of(study, n, reward, decisions=DECISIONS):
    """Run ``n`` trials one after another and return their rewards."""
    found = []
    for _ in range(n):
        trial, params = ask(study, decisions)
        found.append(reward(params))
        study.tell(trial, found[-1])
    return found


def busy(study, n, seed=0):
    """Run ``n`` trials, five open, ended in random order, every seventh a failure."""
    rng = np.random.default_rng(seed)
    going, proposed = [], []
    while len(proposed) < n or going:
        if len(proposed) < n and len(going) < 5:
            going.append(ask(study))
            proposed.append(going[-1][1])
            continue
        trial, params = going.pop(rng.integers(len(going)))
        if trial.number % 7 == 3:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, toy(params))
    return proposed


def a_policy(sizes=(3, 2, 1, 4), scale=6.0):
    """Return a policy far from uniform, and every sequence of answers."""
    policy = Policy(sizes, 8, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in policy.parameters:
            parameter *= scale
    return policy, torch.tensor(list(itertools.product(*map(range, sizes))))


def sequence_log_p(policy, codes):
    return of_answers(policy.log_probabilities(codes), codes).sum(dim=1)


# ------------------------------------------------------------------------------------- the policy


def test_the_policy_is_a_distribution_and_is_what_is_sampled():
    """Every number drawn lies between the cumulated probabilities around its choice."""
    policy, every = a_policy()
    p = sequence_log_p(policy, every).exp().detach().numpy()
    assert p.sum() == pytest.approx(1, abs=1e-5)
    assert p.max() > 5 * p.min()
    sequences = range(2000)
    codes = torch.tensor(np.array([policy.sample(np.random.default_rng(s)) for s in sequences]))
    draws = np.array([np.random.default_rng(s).random(4) for s in sequences])
    above = policy.log_probabilities(codes).exp().cumsum(dim=2).detach()
    below = nn.functional.pad(above, (1, 0))
    assert (of_answers(below, codes).numpy() <= draws + 1e-5).all()
    assert (draws <= of_answers(above, codes).numpy() + 1e-5).all()


def test_the_gradient_of_log_p_is_that_of_finite_differences():
    policy, every = a_policy()
    codes = every[[3, 8, 21]]
    grads = torch.autograd.grad(sequence_log_p(policy, codes).sum(), policy.parameters)
    step, generator = 1e-2, torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter, grad in zip(policy.parameters, grads, strict=True):
            direction = torch.randn(parameter.shape, generator=generator)
            parameter += step * direction
            above = sequence_log_p(policy, codes).sum()
            parameter -= 2 * step * direction
            below = sequence_log_p(policy, codes).sum()
            parameter += step * direction
            slope = float((above - below) / (2 * step))
            assert slope == pytest.approx(float((grad * direction).sum()), rel=0.02, abs=2e-3)


def test_the_first_weights_are_uniform_and_nobody_elses_numbers_are_used():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    policy = Policy((5,) * 6, 100, torch.Generator().manual_seed(0))
    study = study_of(ReinforceSampler(DECISIONS))
    rewards_of(study, 12, toy)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002
    weights = torch.cat([parameter.detach().flatten() for parameter in policy.parameters])
    assert 0.0999 < weights.abs().max() <= 0.1
    assert float(weights.std()) == pytest.approx(0.1 / 3**0.5, rel=0.02)


# ------------------------------------------------------------------------------------- the reward


def values(*numbers):
    return [None if number is None else np.array([number]) for number in numbers]


def test_advantages_are_ranks_less_their_moving_average_over_their_deviation():
    found = advantages(values(10.0, 0.1, 7.0), decay=0.5)
    ranks, weights = np.array([3, 1, 2]), np.array([0.25, 0.5, 1]) / 1.75
    mean = (ranks * weights).sum()
    deviation = ((ranks - mean) ** 2 * weights).sum() ** 0.5
    assert found == pytest.approx((ranks - mean) / deviation)


def test_only_the_order_of_rewards_matters_and_failures_are_lowest():
    seen = values(3.0, 1.0, None, 2.0, 2.0)
    stretched = values(np.exp(3.0), np.exp(1.0), None, np.exp(2.0), np.exp(2.0))
    assert (advantages(seen, 0.95) == advantages(stretched, 0.95)).all()
    assert (advantages(seen, 0.95) == advantages(values(3.0, 1.0, 1.0, 2.0, 2.0), 0.95)).all()


@pytest.mark.parametrize("seen", [values(None, None), values(0.3, 0.3, 0.3), values(5.0)])
def test_trials_that_do_not_differ_teach_nothing(seen):
    assert (advantages(seen, 0.95) == 0).all()


# ---------------------------------------------------------------------------------- what it learns


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, marks=pytest.mark.slow),
        {"algorithm": "reinforce", "batch_size": 1},
    ],
    ids=["ppo", "reinforce"],
)
def test_it_learns_a_space_with_a_known_optimum(settings):
    """The last 50 of 500 trials, against the mean over all 8,000 combinations."""
    late = [
        np.mean(rewards_of(study_of(ReinforceSampler(DECISIONS, s, **settings)), 500, toy)[-50:])
        for s in range(2)
    ]
    error = max(np.std(late, ddof=1), EVERY.std() / 50**0.5) / len(late) ** 0.5
    assert np.mean(late) - EVERY.mean() > 5 * error
    assert np.mean(late) > EVERY.mean() + 0.5 * (EVERY.max() - EVERY.mean())


def test_what_fails_is_avoided():
    """Choice 2 of the first decision fails: a quarter of uniform proposals would."""
    study = study_of(ReinforceSampler(DECISIONS))
    for _ in range(200):
        trial, params = ask(study)
        if params["d0"] == 2:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, float(params["d0"] == 0))
    failed = [trial.state is TrialState.FAIL for trial in study.trials]
    assert sum(failed[-60:]) <= 3 < sum(failed[:60])


def test_minimising_the_negative_is_maximising():
    up = study_of(ReinforceSampler(DECISIONS))
    down = study_of(ReinforceSampler(DECISIONS), ["minimize"])
    rewards_of(up, 40, toy)
    rewards_of(down, 40, lambda params: -toy(params))
    assert [t.params for t in up.trials] == [t.params for t in down.trials]


def test_two_objectives_are_both_learned():
    """The first is to be small, the second large; uniform proposals give 1.5 and 2."""
    study = study_of(ReinforceSampler(DECISIONS), ["minimize", "maximize"])
    for _ in range(200):
        trial, params = ask(study)
        study.tell(trial, [params["d0"], params["d1"]])
    small, large = np.mean([trial.values for trial in study.trials[-60:]], axis=0)
    assert small < 0.5
    assert large > 3


def test_an_infinite_value_is_a_failure():
    study = study_of(ReinforceSampler(DECISIONS), ["minimize", "maximize"])
    for _ in range(100):
        trial, params = ask(study)
        bad = params["d0"] == 2
        study.tell(trial, [float("-inf") if bad else -params["d0"], 1.0])
    assert weights(study.sampler).isfinite().all()
    chosen = [trial.params["d0"] for trial in study.trials]
    assert chosen[-30:].count(2) < chosen[:30].count(2)


def test_an_entropy_bonus_keeps_the_policy_open():
    decisions = {"a": (0, 1, 2), "b": (0, 1, 2, 3)}
    every = torch.tensor(list(itertools.product(*decisions.values())))

    def entropy(weight):
        sampler = ReinforceSampler(decisions, entropy_weight=weight)
        rewards_of(study_of(sampler), 100, lambda p: p["a"] + p["b"], decisions)
        log_p = sequence_log_p(sampler._controller.policy, every).detach()
        return float(-(log_p.exp() * log_p).sum())

    assert entropy(0.0) < 0.5 * entropy(0.2) < entropy(5.0) - 0.6
    assert entropy(5.0) == pytest.approx(np.log(12), abs=0.1)


def test_a_known_proposal_is_drawn_again(monkeypatch):
    decisions = {"a": (0, 1, 2, 3), "b": (0, 1, 2, 3), "c": (0, 1, 2, 3)}

    def different():
        study = study_of(ReinforceSampler(decisions))
        rewards_of(study, 40, lambda p: p["a"], decisions)
        return len({tuple(trial.params.values()) for trial in study.trials})

    redrawn = different()
    monkeypatch.setattr(reinforce, "REDRAWS", 0)
    assert different() + 5 <= redrawn


def test_a_decision_with_one_choice_and_parameters_of_the_users_own():
    decisions = {"only": ("x",), "a": (0, 1, 2), "also": (None,)}
    study = study_of(ReinforceSampler(decisions))
    rates = []
    for _ in range(60):
        trial, params = ask(study, decisions)
        rates.append(trial.suggest_float("rate", 0, 1))
        study.tell(trial, params["a"])
    assert len(set(rates)) == 60
    assert np.mean([trial.params["a"] for trial in study.trials[-20:]]) > 1.5

    every = {"only": ("x",), "also": (None,)}
    assert rewards_of(study_of(ReinforceSampler(every)), 12, lambda p: 1.0, every) == [1.0] * 12


def test_it_learns_from_a_study_that_somebody_else_began():
    """Its decisions are not given; trials of other choices and unfinished ones are left out."""
    study = study_of(optuna.samplers.RandomSampler(seed=0))
    rewards_of(study, 150, toy)
    study.add_trial(
        optuna.create_trial(
            params=dict.fromkeys(DECISIONS, "odd"),
            distributions={
                name: optuna.distributions.CategoricalDistribution(["odd", "even"])
                for name in DECISIONS
            },
            state=TrialState.FAIL,
        )
    )
    study.enqueue_trial(dict.fromkeys(DECISIONS, 0))
    given = ReinforceSampler(DECISIONS, 1)
    for sampler in (given, ReinforceSampler(seed=1)):
        study.sampler = sampler
        drawn = rewards_of(study, 40, toy)
        assert np.mean(drawn) > EVERY.mean() + EVERY.std()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"algorithm": "trpo"}, r"algorithm: expected one of \['ppo', 'reinforce'\], got 'trpo'"),
        ({"batch_size": 0}, "batch_size: expected >= 1, got 0"),
        ({"epochs": 0}, "epochs: expected >= 1, got 0"),
        ({"hidden_units": 0}, "hidden_units: expected >= 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate: expected > 0, got 0.0"),
        ({"clip": float("nan")}, "clip: expected > 0, got nan"),
        ({"entropy_weight": -1}, "entropy_weight: expected >= 0, got -1"),
        ({"baseline_decay": 0}, r"baseline_decay: expected a share in \(0, 1\], got 0"),
    ],
)
def test_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        ReinforceSampler(DECISIONS, **setting)


# -------------------------------------------------------------------------- the ledger decides all


def weights(sampler):
    return torch.cat([p.detach().flatten() for p in sampler._controller.policy.parameters])


def test_a_restarted_sampler_has_the_same_weights_and_proposals(tmp_path):
    """To the last bit, live and read back from the journal; another seed has other weights."""

    def storage():
        path = str(tmp_path / "journal")
        backend = optuna.storages.journal.JournalFileBackend(path)
        return optuna.storages.JournalStorage(backend)

    live = study_of(ReinforceSampler(DECISIONS, 3), study_name="s", storage=storage())
    busy(live, 60)
    ask(live)  # runs while the driver dies
    number = len(live.trials)
    made = {}
    for name, seed in (("again", 3), ("other", 4)):
        sampler = ReinforceSampler(DECISIONS, seed)
        study = optuna.load_study(study_name="s", storage=storage(), sampler=sampler)
        made[name] = [propose(study, n) for n in range(number, number + 5)], weights(sampler)
    proposals = [propose(live, n) for n in range(number, number + 5)]
    assert made["again"][0] == proposals != made["other"][0]
    assert torch.equal(made["again"][1], weights(live.sampler))
    assert len({str(p) for p in proposals}) > 1


def test_what_was_kept_in_a_file_is_not_taught_again(tmp_path, monkeypatch):
    """Weights and proposals are those of a sampler that is taught every batch, to the last bit."""

    def sampler(folder, **settings):
        made = ReinforceSampler(DECISIONS, 3, epochs=2, **settings)
        if folder is not None:
            made.keep_in(folder)
        return made

    taught = []
    plain = ReinforceSampler._teach
    monkeypatch.setattr(
        ReinforceSampler, "_teach", lambda self, c: (taught.append(self), plain(self, c))
    )
    live = study_of(sampler(tmp_path))
    open_ = [ask(live), ask(live)]  # one is credited long before it is taught
    busy(live, 118)
    live.tell(open_[1][0], 0.5)
    ask(live)
    number = len(live.trials)
    expected = [propose(live, n) for n in range(number, number + 5)], weights(live.sampler)

    def again(study, folder, **settings):
        """Return what a sampler made anew proposes, its weights, and how many batches it took."""
        taught.clear()
        study.sampler = sampler(folder, **settings)
        proposals = [propose(study, n) for n in range(number, number + 5)]
        return proposals, weights(study.sampler), len(taught)

    batches = again(live, None)[2]
    assert batches > 20
    found = again(live, tmp_path)
    assert found[2] == batches % 20
    assert found[0] == expected[0]
    assert torch.equal(found[1], expected[1])
    assert again(live, tmp_path, clip=0.1)[2] == batches  # other settings
    for content in (b"", b"PK broken", (tmp_path / "sampler.npz").read_bytes()[:-200]):
        (tmp_path / "sampler.npz").write_bytes(content)
        assert again(live, tmp_path)[2] == batches


def test_what_was_learned_from_other_values_is_not_taken(tmp_path):
    study = study_of(ReinforceSampler(DECISIONS, 3, epochs=1))
    study.sampler.keep_in(tmp_path)
    busy(study, 104)
    ask(study)
    assert (tmp_path / "sampler.npz").exists()
    other = study_of(ReinforceSampler(DECISIONS, 3, epochs=1))
    for trial in study.get_trials():
        if trial.number == 9:
            trial.value += 100
        other._storage.create_new_trial(other._study_id, trial)
    propose(other, 105)
    kept = ReinforceSampler(DECISIONS, 3, epochs=1)
    kept.keep_in(tmp_path)
    taught = weights(other.sampler)
    other.sampler = kept
    propose(other, 105)
    assert torch.equal(weights(kept), taught)
    assert not torch.equal(weights(study.sampler), taught)


def propose(study, number):
    """Return what trial ``number`` would be, without beginning it."""
    trial = optuna.create_trial(state=TrialState.WAITING)
    trial.number = number
    return study.sampler.sample_relative(study, trial, DECISIONS)


def credits_of(monkeypatch):
    """Return a list that fills with (trial, its log p in an update)."""
    found = []
    plain = reinforce.Controller.next_batch

    def watched(controller, size):
        numbers = [lesson.start[1] for lesson in controller.ended[:size]]
        answers, before = plain(controller, size)
        found.extend(zip(numbers, before.sum(dim=1).tolist(), strict=True))
        return answers, before

    monkeypatch.setattr(reinforce.Controller, "next_batch", watched)
    return found


def test_every_trial_is_credited_to_the_policy_that_proposed_it(monkeypatch):
    """Five trials open, ended in any order; live, and replayed by a sampler that was not there."""
    credited = credits_of(monkeypatch)
    sampler = ReinforceSampler(DECISIONS, 3)
    study = study_of(sampler)
    at_proposal = {}
    plain = ReinforceSampler.propose

    def watched(self, history, rng):
        params = plain(self, history, rng)
        codes = torch.tensor([[DECISIONS[n].index(params[n]) for n in DECISIONS]])
        with torch.no_grad():
            log_p = float(sequence_log_p(self._controller.policy, codes))
        at_proposal[len(at_proposal)] = log_p
        return params

    monkeypatch.setattr(ReinforceSampler, "propose", watched)
    busy(study, 60)
    monkeypatch.undo()
    live = dict(credited)
    assert len(live) == 55  # the last batch waits for the next proposal
    assert live == pytest.approx({number: at_proposal[number] for number in live}, abs=1e-5)
    assert np.ptp(list(live.values())) > 1  # the policy moved by far more than that
    replayed = credits_of(monkeypatch)
    study.sampler = ReinforceSampler(DECISIONS, 3)
    propose(study, 60)
    assert dict(replayed[:55]) == live


def test_news_that_arrive_late_are_put_where_they_belong():
    """Another process wrote a trial that began and ended before the last update."""
    live = study_of(ReinforceSampler(DECISIONS, 3))
    busy(live, 31)
    propose(live, 31)
    learned = weights(live.sampler)
    late = live.trials[20]
    late.datetime_start += timedelta(microseconds=1)
    late.datetime_complete += timedelta(microseconds=1)
    live.add_trial(late)
    proposed = propose(live, 32)
    assert not torch.equal(weights(live.sampler), learned)
    updated = weights(live.sampler)
    live.sampler = ReinforceSampler(DECISIONS, 3)
    assert propose(live, 32) == proposed
    assert torch.equal(weights(live.sampler), updated)


@pytest.mark.parametrize("open_at_a_time", [10, 16])
def test_more_trials_may_run_than_make_a_batch(open_at_a_time):
    """All are asked before any is told: later batches began before the update of earlier ones."""
    decisions = {f"d{i}": tuple(range(4)) for i in range(4)}
    study = optuna.create_study(direction="maximize", sampler=ReinforceSampler(decisions, 0))
    for _ in range(4):
        trials = [study.ask() for _ in range(open_at_a_time)]
        answers = [{n: t.suggest_categorical(n, c) for n, c in decisions.items()} for t in trials]
        for trial, params in zip(trials, answers, strict=True):
            study.tell(trial, float(sum(params.values())))
    assert len(study.trials) == 4 * open_at_a_time


def test_a_policy_that_has_settled_does_not_end_the_search():
    """Never more than some 20 repeats in a row, where one set of choices is all that pays."""
    decisions = {f"d{i}": tuple(range(3)) for i in range(4)}
    sampler = ReinforceSampler(decisions, 0, learning_rate=0.03)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    found, repeats, longest = set(), 0, 0
    for _ in range(300):
        trial = study.ask()
        params = {n: trial.suggest_categorical(n, c) for n, c in decisions.items()}
        answers = tuple(params.values())
        repeats = repeats + 1 if answers in found else 0
        longest = max(longest, repeats)
        found.add(answers)
        study.tell(trial, float(answers == (1, 1, 1, 1)) + 0.1 * params["d0"])
    assert 20 <= longest <= 25
