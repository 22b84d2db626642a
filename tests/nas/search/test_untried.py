"""A sampler that repeats itself ends no search while cells are left, nor makes one endless."""

from __future__ import annotations

import itertools

import numpy as np
import optuna
import pytest
from optuna.samplers import BaseSampler

from nas.data.config import DataConfig
from nas.ledger.study import open_study
from nas.samplers.decisions import Decisions
from nas.samplers.registry import SAMPLERS
from nas.search.plan import SearchPlan
from nas.search.sampling import MAX_REPEATS
from nas.search.search import Search
from nas.search.untried import untried
from nas.trial.recipe import Recipe
from nas.trial.trial import Trial
from search_spaces import DepthChannels


class Stubborn(BaseSampler):
    """Always proposes the first choices."""

    def __init__(self, decisions, seed):
        self.ended = 0

    def infer_relative_search_space(self, study, trial):
        return {}

    def sample_relative(self, study, trial, search_space):
        return {}

    def sample_independent(self, study, trial, param_name, param_distribution):
        return param_distribution.choices[0]


def search_of(space, sampler, trials, run=None):
    template = Trial(next(iter(space)), Recipe(), DataConfig(), ())
    plan = SearchPlan(space, template, {}, {"a": "max"}, sampler, {}, trials=trials)
    if run is not None:
        return Search(open_study(run, directions=plan.directions), plan)
    study = optuna.create_study(directions=plan.directions, pruner=optuna.pruners.NopPruner())
    return Search(study, plan)


def drive(search, most=10_000):
    found = []
    while len(found) < most and (proposal := search.propose()) is not None:
        choices = dict(proposal.trial.architecture.choices)
        found.append(tuple(choices.values()))
        outcome = {"status": "complete", "reason": "", "scores": {"a": choices["depth"] / 10}}
        search.finish(proposal.number, {**outcome, "epochs": 1, "seconds": 1.0})
    return found


SMALL = DepthChannels(depth=tuple(range(1, 7)), channels=(8, 12, 16, 20, 24))


@pytest.mark.parametrize("sampler", [Stubborn, SAMPLERS["nsga2"], SAMPLERS["random"]])
def test_every_cell_is_tried_before_a_space_is_used_up(sampler):
    search = search_of(SMALL, sampler, 1000)
    found = drive(search)
    assert sorted(found) == sorted(itertools.product(range(1, 7), (8, 12, 16, 20, 24)))
    assert search.used_up
    assert "each of 30 combinations" in search.why_used_up()


def test_a_budget_of_every_cell_is_met():
    search = search_of(SMALL, Stubborn, 30)
    assert len(set(drive(search))) == 30
    assert not search.used_up


def test_a_repeat_counts_until_an_untried_cell_takes_its_place():
    search = search_of(SMALL, Stubborn, 2)
    drive(search)
    states = [t.user_attrs["psinas"]["repeat_of"] for t in search.study.trials]
    assert states == [None, *[0] * MAX_REPEATS, None]


def test_a_resumed_search_takes_the_same_cells(tmp_path):
    whole = drive(search_of(SMALL, Stubborn, 8))
    broken = []
    for most in (2, 3, 10):
        broken += drive(search_of(SMALL, Stubborn, 8, run=tmp_path), most)
    assert broken == whole


def test_cells_that_run_are_not_asked_for_again():
    space = DepthChannels(depth=(1, 2), channels=(8, 16))
    search = search_of(space, Stubborn, 10)
    running = [search.propose() for _ in range(4)]
    assert len({p.trial.key for p in running}) == 4
    assert search.propose() is None


def test_a_space_too_large_to_list_is_drawn_from():
    large = Decisions({f"d{i}": (0, 1) for i in range(20)})
    known = {large.key(dict.fromkeys(large, 0))}
    assert untried(large, known, np.random.default_rng(0)) is not None

    class Everything:
        def __contains__(self, key):
            return True

    assert untried(large, Everything(), np.random.default_rng(0)) is None
