"""Repeats: every architecture under several seeds, one trial whose scores are means."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from metrics import METRICS
from nas.data.config import DataConfig, Limit
from nas.data.datasets import load_images
from nas.search.winners import best, overruled, worth_keeping
from nas.trial.deviations import cautious, told
from nas.trial.evaluation import Evaluation, evaluate
from nas.trial.recipe import Recipe
from nas.trial.repeats import mean_scores, nearest, repeated
from nas.trial.runner import TrialRunner
from nas.trial.state import Epoch
from nas.trial.training import drain
from nas.trial.trial import Trial
from search_spaces import DepthChannels


@pytest.fixture(scope="module")
def trial():
    space = DepthChannels(depth=(1,), channels=(6,), stem="small")
    recipe = Recipe(epochs=2, batch_size=64, adversary="none", epsilon=0.1, selection_images=30)
    data = DataConfig(name="digits", limit=Limit(train=128, validation=100))
    return Trial(next(iter(space)), recipe, data, (METRICS["clean"](), METRICS["cost"]()))


def test_scores_are_means_of_trainings_under_seeds_of_their_own(trial):
    """Beside numpy's mean and deviation of three trials that vary ``repeat`` themselves."""
    alone = [evaluate(replace(trial, repeat=r)) for r in range(3)]
    together = evaluate(replace(trial, repeats=3))
    assert len({a.scores["clean_accuracy"] for a in alone}) > 1
    for name in ("clean_accuracy", "last_epoch_robust_accuracy", "parameters"):
        values = [a.scores[name] for a in alone]
        assert together.scores[name] == pytest.approx(np.mean(values), abs=1e-15)
        assert together.scores[f"{name}_std"] == pytest.approx(np.std(values, ddof=1), abs=1e-15)
    timeless = [{k: v for k, v in r.items() if "seconds" not in k} for r in together.repeats]
    assert timeless == [{k: v for k, v in a.scores.items() if "seconds" not in k} for a in alone]
    kept = together.kept_repeat
    for name, weight in alone[kept].weights.items():
        assert weight.equal(together.weights[name])
    assert [e.epoch for e in together.epochs] == [1, 2, 3, 4, 5, 6]
    written = together.to_dict()
    assert (written["epochs"], written["kept_repeat"], len(written["repeats"])) == (6, kept, 3)


def test_a_trial_of_one_repeat_is_what_it_was(trial):
    one = evaluate(trial)
    assert (one.repeats, one.kept_repeat) == ((), None)
    assert not [name for name in one.scores if name.endswith("_std")]
    assert one.to_dict().keys() == {
        "status", "reason", "scores", "epochs", "seconds", "environment"
    }  # fmt: skip
    assert trial.key == replace(trial, repeats=1).key
    assert trial.key.endswith("-0")
    assert replace(trial, repeats=3).key != trial.key


def pretend(*scores, fails=None, epochs=2):
    """Return a ``run`` whose repeat r gives these scores after so many epochs."""

    def run(trial):
        assert trial.repeats == 1
        for number in range(1, epochs + 1):
            yield Epoch(number, 0.5, 0.5, 0.5, 0.1)
        if trial.repeat == fails:
            return Evaluation("oom", "too large", seconds=1.0)
        return Evaluation("complete", scores={"a": scores[trial.repeat]}, seconds=1.0)

    return run


def test_a_scheduler_sees_the_epochs_of_the_first_repeat(trial):
    """A worker hands over epochs below ``recipe.epochs``; the others belong to its last step."""
    trial = replace(trial, repeats=3, recipe=replace(trial.recipe, epochs=4))
    steps = repeated(pretend(1.0, 2.0, 3.0, epochs=4), trial)
    epochs = [epoch.epoch for epoch in steps]
    assert [e for e in epochs if e < trial.recipe.epochs] == [1, 2, 3]
    assert epochs == list(range(1, 13))


def test_a_repeat_that_fails_ends_the_trial_and_is_named(trial):
    found = drain(repeated(pretend(0.5, 0.0, 0.5, fails=1), replace(trial, repeats=3)))
    assert (found.status, found.reason) == ("oom", "repeat 1 of 0 ... 2: too large")
    assert (found.scores, found.repeats, found.weights) == ({}, ({"a": 0.5},), None)
    assert found.seconds == 2.0


def test_a_worker_runs_every_repeat(trial):
    images = {trial.data.source: load_images(trial.data)}
    runner = TrialRunner(replace(trial, repeats=2), images, device="cpu", threads=1)
    found = drain(runner.run(runner.trial(trial.architecture.to_dict(), {})))
    assert len(found.repeats) == 2


def test_means_of_flags_times_and_what_is_not_finite():
    repeats = [
        {"a": 0.1, "b": 1.0, "suspicion_x_raised": 0.0, "a_low": 0.0, "train_seconds": 1.0},
        {"a": 0.1, "b": math.nan, "suspicion_x_raised": 1.0, "a_low": 0.1, "train_seconds": 2.0},
        {"a": 0.1, "b": 1.0, "suspicion_x_raised": math.nan, "a_low": 0.2, "train_seconds": 6.0,
         "only": 1.0},
    ]  # fmt: skip
    scores = mean_scores(repeats)
    assert scores["a"] == 0.1  # 0.1 + 0.1 + 0.1 is not 0.3
    assert scores["a_std"] == 0.0
    assert math.isnan(scores["b"])
    assert scores["suspicion_x_raised"] == 1.0
    assert scores["train_seconds"] == 3.0
    ends = {name for name in scores if name.endswith("_std")}
    assert ends == {"a_std", "b_std"}
    assert "only" not in scores


def test_the_repeat_nearest_the_mean_is_kept():
    assert nearest([{"a": 0.0}, {"a": 1.0}, {"a": 0.4}]) == 2
    assert nearest([{"a": 1.0}, {"a": 3.0}]) == 0  # equally far
    # In units of the deviation: 1000 times the unit counts for no more.
    small = [{"a": x, "b": y} for x, y in ((0.0, 5.0), (0.4, 1.0), (1.0, 9.0))]
    large = [{"a": 1000 * r["a"], "b": r["b"]} for r in small]
    assert nearest(small) == nearest(large)


def result(number, mean, deviation, **more):
    scores = {"a": mean, "a_std": deviation, **more}
    return {"number": number, "status": "complete", "reason": "", "scores": scores}


def test_the_winner_has_the_best_worse_end():
    lucky, steady = result(0, 0.60, 0.20), result(1, 0.55, 0.02)
    assert best([lucky, steady], "a", "max")["number"] == 1
    assert best([result(0, 0.40, 0.20), result(1, 0.45, 0.02)], "a", "min")["number"] == 1
    without = [{**r, "scores": {"a": r["scores"]["a"]}} for r in (lucky, steady)]
    assert best(without, "a", "max")["number"] == 0
    assert [r["number"] for r in worth_keeping([lucky, steady], {"a": "max"}, 1)] == [0, 1]


def test_a_flagged_trial_is_overruled_only_where_its_worse_end_is_better():
    winner = result(0, 0.5, 0.0)
    flag = {"suspicion_x_raised": 1.0}
    flagged = [result(1, 0.6, 0.2, **flag), result(2, 0.6, 0.05, **flag)]
    assert [r["number"] for r in overruled(flagged, winner, "a", "max")] == [2]


def test_a_score_is_told_with_its_deviation():
    assert told({"a": 0.51234, "a_std": 0.0123}, "a") == "0.5123 ± 0.012"
    assert told({"a": 0.51234}, "a") == "0.5123"
    assert cautious({"a": 0.5, "a_std": 0.1}, "a", "min") == pytest.approx(0.6)
    assert math.isnan(cautious({}, "a", "max"))
