"""Any BaseSampler class searches: its arguments are settings, and what it does wrong is named."""

from __future__ import annotations

import own_samplers
import pytest
from optuna.samplers import GridSampler, RandomSampler, TPESampler

from launch.config.config import load_config
from nas.data.config import DataConfig
from nas.errors import InputError, SamplerFailure
from nas.ledger.study import open_study
from nas.samplers.classes import SamplerClass
from nas.samplers.registry import SAMPLERS
from nas.search.plan import SearchPlan
from nas.search.search import Search
from nas.trial.recipe import Recipe
from nas.trial.trial import Trial
from search_spaces import DepthChannels

SPACE = DepthChannels(depth=(1, 2, 3, 4), channels=(8, 16, 32))


def open_search(run, sampler, trials=8, **settings):
    run.mkdir(exist_ok=True)
    template = Trial(next(iter(SPACE)), Recipe(), DataConfig(), ())
    plan = SearchPlan(SPACE, template, {}, {"a": "max"}, sampler, settings, trials=trials)
    return Search(open_study(run, directions=plan.directions), plan)


def drive(search, most=100):
    found = []
    while len(found) < most and (proposal := search.propose()) is not None:
        choices = dict(proposal.trial.architecture.choices)
        found.append(tuple(choices.values()))
        scores = {"a": choices["depth"] + choices["channels"] / 100}
        outcome = {"status": "complete", "reason": "", "scores": scores}
        search.finish(proposal.number, {**outcome, "epochs": 1, "seconds": 1.0})
    return found


def of(name, **settings):
    return load_config("digits", [f"sampler={{name: '{name}'}}"]).built_sampler()


OPTUNAS = ["TPESampler", "RandomSampler", "NSGAIISampler", "NSGAIIISampler", "QMCSampler",
           "BruteForceSampler", "GridSampler"]  # fmt: skip


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("name", OPTUNAS)
def test_optunas_classes_search_the_same_twice_and_after_a_restart(name, tmp_path):
    factory, settings = of(f"optuna.samplers:{name}")
    runs = [drive(open_search(tmp_path / str(i), factory, 12, **settings)) for i in range(2)]
    broken = drive(open_search(tmp_path / "broken", factory, 12, **settings), most=5)
    broken += drive(open_search(tmp_path / "broken", factory, 12, **settings))
    assert runs[0] == runs[1]
    assert broken == runs[0] or name in ("GridSampler", "BruteForceSampler")
    assert len(set(runs[0])) == len(set(broken)) == 12


def test_what_a_constructor_takes_are_settings():
    factory, settings = load_config(
        "digits", ["sampler={name: 'optuna.samplers:TPESampler', n_startup_trials: '3'}"]
    ).built_sampler()
    assert settings == {"n_startup_trials": 3}
    assert factory({}, 5, **settings)._n_startup_trials == 3
    made = factory({}, 5)
    again = TPESampler(seed=5)
    draws = [s._rng.rng.random() for s in (made, again)]
    assert draws[0] == draws[1]
    assert SamplerClass(own_samplers.Counting)({}, 7).seed == 7


MISTAKES = [
    ("optuna.samplers:TPESampler', n_startup: 3", "sampler.n_startup: unknown key; known: "),
    ("own_samplers:Tuned', n_startup: 3", "sampler.n_startup: unknown key; known: "),
    ("own_samplers:Counting', seed: 3", "sampler.seed: unknown key; known: start, unit"),
    ("own_samplers:Counting', start: x", "sampler.start: expected a valid integer"),
    ("own_samplers:Needy", "sampler: "),
    ("own_samplers:Needy', model: 1", "sampler: ModuleNotFoundError: No module named 'big_model'"),
    ("own_samplers:making', start: 1", "sampler.start: unknown key; known: warm_up"),
    ("own_samplers:nothing", "sampler.name: expected a BaseSampler class, or a callable of"),
    ("optuna.samplers:BaseSampler", "sampler: Can't instantiate abstract class"),
    ("builtins:dict", "sampler"),
    ("own_samplers:MADE", "sampler.name: expected a BaseSampler class"),
    ("optuna.samplers:PartialFixedSampler", "sampler: "),
    ("no_such_module:Thing", "sampler.name: 'no_such_module:Thing' cannot be imported"),
]


@pytest.mark.parametrize(("entry", "line"), MISTAKES, ids=[m[0] for m in MISTAKES])
def test_a_mistake_is_one_line(entry, line):
    text = f"sampler={{name: '{entry}" + ("}" if "'," in entry else "'}")
    with pytest.raises(InputError) as caught:
        load_config("digits", [text])
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_settings_behind_two_stars_and_of_factories():
    known = SamplerClass(own_samplers.Tuned).settings
    assert {"n_startup_trials", "multivariate"} <= set(known)
    assert "seed" not in known
    for name, more in (("making", "warm_up: 0"), ("anything", "whatever: [1, 2]")):
        factory, settings = load_config(
            "digits", [f"sampler={{name: 'own_samplers:{name}', {more}}}"]
        ).built_sampler()
        assert factory is getattr(own_samplers, name)
        assert len(settings) == 1


def test_a_sampler_that_counts_in_memory_is_made_once_and_draws_on_after_a_restart(tmp_path):
    own_samplers.MADE.clear()
    factory = SamplerClass(own_samplers.Counting)
    first = drive(open_search(tmp_path, factory, 12), most=4)
    assert first == [(1, 8), (2, 16), (3, 32), (4, 8)]
    assert len(own_samplers.MADE) == 1
    second = open_search(tmp_path, factory, 12)
    assert own_samplers.MADE[1].seed != own_samplers.MADE[0].seed
    assert len({*first, *drive(second)}) == 12
    assert not second.used_up


def test_one_that_raises_or_proposes_what_is_no_choice_is_named(tmp_path):
    search = open_search(tmp_path / "raising", SamplerClass(own_samplers.Raising))
    with pytest.raises(SamplerFailure, match=r"Raising failed at trial 2: RuntimeError: no more"):
        drive(search)
    assert search.finished == 2
    mended = open_search(tmp_path / "raising", SAMPLERS["random"])
    assert len(drive(mended)) == 6  # with the one that was left running
    with pytest.raises(SamplerFailure, match=r"Outside failed at trial 0: ValueError: .*99"):
        drive(open_search(tmp_path / "outside", SamplerClass(own_samplers.Outside)))


def test_a_fault_of_our_own_samplers_and_of_the_disk_is_none_of_the_users(tmp_path, monkeypatch):
    search = open_search(tmp_path, SAMPLERS["random"])
    monkeypatch.setattr(RandomSampler, "sample_independent", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        search.propose()
    search = open_search(tmp_path / "other", SamplerClass(own_samplers.Counting))

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(search.study._storage), "set_trial_param", full)
    with pytest.raises(OSError, match="No space left"):
        search.propose()


def test_optunas_grid_is_given_its_space():
    assert "search_space" not in SamplerClass(GridSampler).settings
