"""The best under fresh seeds: an ordinary search, that resumes, and takes over what is known."""

from __future__ import annotations

import shutil

import pytest
from helpers import TINY, one_line, search_here

from launch.runs.run import Run
from launch.runs.seeds import first_fresh, seeds_config
from nas.analysis import seeds
from nas.analysis.seed_repeats import fresh_runs


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """Return a finished search of four trials, which no test writes to."""
    return search_here(tmp_path_factory.mktemp("runs") / "tiny", TINY)


@pytest.fixture
def run(tmp_path, searched):
    """Return a copy of the search."""
    return shutil.copytree(searched, tmp_path / "runs" / "tiny")


def test_the_best_are_trained_under_seeds_that_the_search_had_not(run, psinas, in_process):
    code, out, err = psinas("seeds", run, "--top", 2, "--repeats", 2)
    assert code == 0, err
    found = Run(run)
    first = found.trial(0).trial
    used = {r.seed_for("weights") for r in in_process}
    assert len(in_process) == len(used) == 4
    assert first.seed_for("weights") not in used
    assert {t.repeat for t in in_process} == {1, 2}
    assert {(t.recipe, t.data, t.metrics, t.seed) for t in in_process} == {
        (first.recipe, first.data, first.metrics, first.seed)
    }
    read = seeds(run)
    best = found.table().sort_values("pgd_accuracy", ascending=False, kind="stable")
    assert set(read["number"]) == set(best["number"][:2])
    assert list(read["n"]) == [2, 2]
    assert f"Trial {best['number'].iloc[0]} was the first of these" in out
    assert "Regression to the mean" in out


def test_more_seeds_and_trials_train_only_what_is_missing(run, psinas, in_process):
    psinas("seeds", run, "--trials", "1,2", "--repeats", 2)
    assert psinas("seeds", run, "--trials", "1,2", "--repeats", 2)[0] == 0
    assert len(in_process) == 4  # the same command again trains nothing
    psinas("seeds", run, "--trials", "2,3", "--repeats", 3)
    trained = [(t.architecture.hash, t.repeat) for t in in_process]
    assert len(trained) == len(set(trained)) == 8
    assert len(fresh_runs(run)) == 2
    read = seeds(run).set_index("number")
    assert dict(read["n"]) == {1: 2, 2: 3, 3: 3}


def test_a_search_under_several_seeds_of_its_own_gets_others(tmp_path):
    one = {"depth": 1, "channels": 4}
    plain = search_here(tmp_path / "plain", {**TINY, "repeats": 2, "fix": one})
    config = seeds_config(Run(plain), [0], 3)
    assert config.vary["repeat"] == [2, 3, 4]
    assert config.repeats == 1
    assert config.trials == 3
    varied = {
        "vary": {"repeat": [0, 4], "recipe.epochs": [1, 2]},
        "fix": {"depth": 1, "channels": 4},
    }
    run = Run(search_here(tmp_path / "varied", {**TINY, **varied}))
    config = seeds_config(run, [0, 2, 3], 2)
    assert first_fresh(run.config) == 5
    assert config.vary == {"recipe.epochs": [1, 2], "repeat": [5, 6]}
    keys = {(t["recipe.epochs"]) for t in config.sampler["only"]}
    assert keys == {1, 2}
    assert len(config.sampler["only"]) == 2  # two seeds of one recipe are the same thing repeated


def test_fresh_seeds_that_all_fail_are_told(run, psinas, in_process, monkeypatch):
    monkeypatch.setattr("nas.trial.evaluation.check_output", _broken)
    code, out, _ = psinas("seeds", run, "--top", 1, "--repeats", 2)
    assert code == 1
    assert "2 failed" in out
    assert "nothing can be told" in out


def _broken(*_):
    raise RuntimeError("no luck")


def test_what_cannot_be_repeated_is_one_line(run, psinas, in_process):
    one_line(psinas("seeds", run, "--trials", "9"), "--trial: expected 0 ... 3")
    one_line(psinas("seeds", run, "--trials", "x"), "--trials: expected numbers")
    one_line(psinas("seeds", run, "--trials", "1", "--top", "2"), "--trials: expected no --top")
    one_line(psinas("seeds", run, "--best", "nothing"), "expected a score")
    one_line(psinas("seeds", run.parent), "expected a run directory")
    assert in_process == []
