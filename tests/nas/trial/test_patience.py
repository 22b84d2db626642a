"""Early stopping: training ends where no epoch was better for long, and says so."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import asdict, replace

import pytest
import torch

from metrics import METRICS
from nas.data.config import DataConfig, Limit
from nas.trial import training as training_module
from nas.trial.deviations import has_deviation
from nas.trial.evaluation import TRAINING_SCORES, Evaluation, evaluate
from nas.trial.files import save_trial
from nas.trial.kept import BEST_IS_AVERAGE, averaged
from nas.trial.recipe import Recipe
from nas.trial.repeats import repeated
from nas.trial.state import Epoch, better_scores, out_of_patience
from nas.trial.training import drain, train
from nas.trial.trial import Trial
from search_spaces import DepthChannels

SPACE = DepthChannels(depth=(1,), channels=(4,), stem="small")
QUICK = Recipe(epochs=8, batch_size=64, adversary="none", epsilon=0.1, steps=1, selection_images=30)


def judged_as(monkeypatch, answers):
    """Let judging give these pairs of robust and clean accuracy, one after another."""
    told = iter(answers)

    def judge(model, data, recipe, seed):
        robust, clean = next(told)
        return clean, robust

    monkeypatch.setattr(training_module, "_judge", judge)


def trained(digits, recipe):
    model = SPACE.build(next(iter(SPACE)), digits.task, seed=0)
    generator = torch.Generator().manual_seed(0)
    return drain(train(model, digits, recipe, recipe.attack(), generator))


RISES = [(0.1, 0.5), (0.3, 0.5), (0.3, 0.6), (0.2, 0.9), (0.3, 0.6), (0.3, 0.5), (0.4, 0.1)]


@pytest.mark.parametrize(
    ("patience", "trained_epochs", "best"),
    [(1, 4, 3), (2, 5, 3), (3, 6, 3), (4, 8, 7), (None, 8, 7)],
)
def test_training_ends_after_so_many_epochs_without_a_better_one(
    digits, monkeypatch, patience, trained_epochs, best
):
    """The best is (0.3, 0.6) of epoch 3, which epoch 5 equals, until epoch 7."""
    judged_as(monkeypatch, [*RISES, (0.0, 0.0)])
    training = trained(digits, replace(QUICK, patience=patience))
    assert len(training.epochs) == training.last.epoch == trained_epochs
    assert training.best.epoch == best
    early = [epoch.stopped_early for epoch in training.epochs]
    assert early == [False] * (trained_epochs - 1) + [trained_epochs < 8]


def test_a_better_average_is_a_better_epoch(digits, monkeypatch):
    plain = [(0.5, 0.5), (0.4, 0.5), (0.3, 0.5), (0.3, 0.5), (0.3, 0.5)]
    average = [(0.1, 0.5), (0.2, 0.5), (0.6, 0.5), (0.6, 0.4), (0.6, 0.5)]
    judged_as(monkeypatch, [pair for both in zip(plain, average, strict=True) for pair in both])
    training = trained(digits, replace(QUICK, patience=2, weight_average=0.9))
    assert (training.last.epoch, training.best.epoch, training.best_is_average) == (5, 3, True)


def test_until_it_ends_training_is_what_it_would_have_been(digits):
    patient = replace(QUICK, learning_rate=0.5, schedule="constant", epochs=12, patience=2)
    short, long = trained(digits, patient), trained(digits, replace(patient, patience=None))
    assert short.last.epoch < 12
    assert short.last.stopped_early
    for mine, whole in zip(short.epochs, long.epochs, strict=False):
        assert mine.train_loss == whole.train_loss
        assert mine.rank == whole.rank


def test_nothing_is_out_of_patience_before_it_began():
    assert not out_of_patience(Recipe(patience=1), [Epoch(1, 0.5, 0.5, 0.5, 0.1)])


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"patience": 0}, "^patience: expected >= 1 or null, got 0"),
        ({"patience": 3, "selection_images": 0}, "^patience: expected selection_images >= 1"),
    ],
)
def test_bad_patience_is_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        Recipe(**settings)


def test_repeats_that_end_early_keep_their_numbers():
    """Repeat r counts from r * recipe.epochs + 1 on; numbers that it leaves out are nobody's."""
    recipe = replace(QUICK, epochs=5, patience=1)
    trial = Trial(next(iter(SPACE)), recipe, DataConfig(), (), repeats=3)

    def run(one):
        for number in range(1, (3, 5, 2)[one.repeat] + 1):
            yield Epoch(number, 0.5, 0.5, 0.5, 0.1)
        return Evaluation("complete", scores={"a": 1.0})

    steps = repeated(run, trial)
    assert [epoch.epoch for epoch in steps] == [1, 2, 3, 6, 7, 8, 9, 10, 11, 12]


# ------------------------------------------------------------------- which weights a row speaks of


def test_a_scheduler_is_told_of_the_better_weights():
    report = asdict(Epoch(3, 0.7, 0.5, 0.3, 1.0, 0.6, 0.3))
    assert better_scores(report) == {"robust_accuracy": 0.3, "clean_accuracy": 0.6}
    report = asdict(Epoch(3, 0.7, 0.5, 0.3, 1.0, 0.9, 0.2))
    assert better_scores(report) == {"robust_accuracy": 0.3, "clean_accuracy": 0.5}
    old = {"epoch": "1", "clean_accuracy": "0.5", "robust_accuracy": "0.25"}  # a row of epochs.csv
    assert better_scores(old) == {"robust_accuracy": 0.25, "clean_accuracy": 0.5}
    unjudged = better_scores(asdict(Epoch(1, 0.7, math.nan, math.nan, 1.0)))
    assert all(math.isnan(v) for v in unjudged.values())


@pytest.fixture
def trial():
    data = DataConfig(name="digits", limit=Limit(train=128, validation=60))
    recipe = replace(QUICK, epochs=2, selection_images=40)
    return Trial(next(iter(SPACE)), recipe, data, (METRICS["clean"](),))


def test_a_trials_scores_are_of_the_weights_that_were_kept(trial, monkeypatch):
    judged_as(monkeypatch, [(0.3, 0.5), (0.2, 0.9), (0.3, 0.6), (0.4, 0.8)])
    found = evaluate(replace(trial, recipe=replace(trial.recipe, weight_average=0.9)))
    own = METRICS["clean"]().score_names
    assert list(found.scores) == [*own, *TRAINING_SCORES, BEST_IS_AVERAGE]
    assert found.scores[BEST_IS_AVERAGE] == 1
    assert found.scores["best_epoch"] == 2
    assert found.scores["best_epoch_robust_accuracy"] == 0.4
    assert found.scores["last_epoch_robust_accuracy"] == 0.4
    assert found.last_weights is None
    assert averaged(found.to_dict())
    judged_as(monkeypatch, [(0.3, 0.5), (0.2, 0.9), (0.1, 0.6), (0.2, 0.8)])
    found = evaluate(replace(trial, recipe=replace(trial.recipe, weight_average=0.9)))
    assert found.scores[BEST_IS_AVERAGE] == 0
    assert (found.scores["best_epoch"], found.scores["last_epoch_robust_accuracy"]) == (1, 0.2)
    assert found.last_weights is not None
    assert not averaged(found.to_dict())
    assert BEST_IS_AVERAGE not in evaluate(trial).scores


def test_of_repeats_the_row_has_the_share_and_the_kept_one_says_its_own():
    assert not has_deviation(BEST_IS_AVERAGE)
    row = {
        "scores": {BEST_IS_AVERAGE: 0.5},
        "repeats": [{BEST_IS_AVERAGE: 0.0}, {BEST_IS_AVERAGE: 1.0}],
    }
    assert [averaged({**row, "kept_repeat": kept}) for kept in (0, 1)] == [False, True]
    assert not averaged({"scores": {"clean_accuracy": 1.0}})


def test_files_hold_both_accuracies(trial, tmp_path):
    own = replace(trial, recipe=replace(trial.recipe, weight_average=0.9))
    found = evaluate(own)
    save_trial(tmp_path, 0, own, found)
    with (tmp_path / "trials" / "0" / "epochs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    saved = json.loads((tmp_path / "trials" / "0" / "outcome.json").read_text())
    for row, report, epoch in zip(rows, saved["reports"], found.epochs, strict=True):
        expected = epoch.average_robust_accuracy, epoch.average_clean_accuracy
        for written in (row, report):
            assert float(written["average_robust_accuracy"]) == expected[0]
            assert float(written["average_clean_accuracy"]) == expected[1]
    assert "average" not in json.dumps(evaluate(trial).to_dict())
