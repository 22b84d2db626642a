"""A trial's time limit holds in every step of training and in every metric.

The clock is the test's own and ticks once whenever it is read, so that a limit of n ends a trial
where it looks at its limit for the n-th time; half a tick less, so that no reading is on it.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import pytest

import metrics
from metrics import deadline
from nas.data.config import DataConfig, Limit
from nas.data.datasets import load_images
from nas.trial.evaluation import evaluate
from nas.trial.recipe import Recipe
from nas.trial.runner import TrialRunner
from nas.trial.training import drain
from nas.trial.trial import Trial
from search_spaces import DepthChannels

EPOCHS, STEPS = 2, 2
MOST = 400  # looks at the limit; more than the trial takes


@pytest.fixture
def trial():
    space = DepthChannels(depth=(1,), channels=(4,), stem="small")
    return Trial(
        space.architecture({"depth": 1, "channels": 4}),
        Recipe(epochs=EPOCHS, batch_size=64, epsilon=0.1, steps=2, selection_images=40),
        DataConfig(limit=Limit(train=64 * STEPS, validation=40)),
        (metrics.METRICS["psi-init"](limit=8), metrics.METRICS["pgd"](epsilon=0.1, steps=2)),
    )


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(deadline, "time", type("Clock", (), {"monotonic": lambda: next(ticks)}))


def runs(trial):
    """Yield the evaluations under the limits 0.5, 1.5, 2.5, ... up to one that completes."""
    images = load_images(trial.data)
    for number in range(1, MOST):
        yield evaluate(trial, images, time_limit_seconds=number - 0.5)


def until_complete(trial):
    found = []
    for evaluation in runs(trial):
        if evaluation.status == "complete":
            return found, evaluation
        found.append(evaluation)
    raise AssertionError("no limit was long enough")


def test_the_limit_ends_a_trial_wherever_it_is_and_says_where(trial):
    late, whole = until_complete(trial)
    assert {evaluation.status for evaluation in late} == {"timeout"}
    where = [
        re.fullmatch(rf"the limit of {n - 0.5:g} s was passed (.*)", evaluation.reason)[1]
        for n, evaluation in enumerate(late, start=1)
    ]
    assert list(dict.fromkeys(where)) == [
        "while building the network",
        "while scoring psi_init",
        "while making a copy to attack",
        "while comparing the attacked copy, before epoch 1 of 2",
        "in epoch 1 of 2, step 1",
        "in epoch 1 of 2, step 2",
        "while judging epoch 1 of 2",
        "while comparing the attacked copy, before epoch 2 of 2",
        "in epoch 2 of 2, step 1",
        "in epoch 2 of 2, step 2",
        "while judging epoch 2 of 2",
        "while scoring pgd",
    ]
    for place, evaluation in zip(where, late, strict=True):
        done = {
            "in epoch 2": 1,
            "before epoch 2": 1,
            "while judging epoch 2": 1,
            "while scoring pgd": 2,
        }
        assert len(evaluation.epochs) == next((n for p, n in done.items() if p in place), 0)
        assert evaluation.epochs == tuple(
            replace(epoch, seconds=own.seconds)
            for epoch, own in zip(whole.epochs, evaluation.epochs, strict=False)
        )
        assert (evaluation.scores, evaluation.weights) == ({}, None)


def test_a_limit_changes_no_score(trial):
    images = load_images(trial.data)
    limits = (None, 1e9)
    free, limited = (evaluate(trial, images, time_limit_seconds=limit) for limit in limits)
    timed = ("train_seconds", "score_seconds", "psi_init_seconds")
    assert {k: v for k, v in free.scores.items() if k not in timed} == {
        k: v for k, v in limited.scores.items() if k not in timed
    }


def test_the_limit_is_of_all_repeats_and_says_in_which(trial):
    alone = len(until_complete(trial)[0])
    images = load_images(trial.data)
    found = evaluate(replace(trial, repeats=3), images, time_limit_seconds=alone + 0.5)
    assert found.status == "timeout"
    assert found.reason == (
        f"repeat 1 of 0 ... 2: the limit of {alone + 0.5} s was passed while building the network"
    )
    assert len(found.repeats) == 1
    assert len(found.epochs) == EPOCHS


def test_a_worker_goes_on_with_the_next_trial(trial):
    images = {trial.data.source: load_images(trial.data)}
    runner = TrialRunner(trial, images, device="cpu", threads=1, time_limit_seconds=12)
    first, second = (drain(runner.run(trial)) for _ in range(2))
    assert first.status == "timeout"
    assert (second.status, second.reason) == (first.status, first.reason)
    runner = TrialRunner(trial, images, device="cpu", threads=1, time_limit_seconds=1e9)
    assert drain(runner.run(trial)).status == "complete"
