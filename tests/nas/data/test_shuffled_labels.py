"""``shuffled_labels``: training images keep a label drawn once; all other images have their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from launch.config.config import load_config
from launch.runs.run import Run
from metrics.robustness.accuracy import correct
from nas.data.arrays import Images, prepare, prepare_test
from nas.data.config import DataConfig, Limit
from nas.data.datasets import load_images, load_test_images
from nas.trial.recipe import Recipe
from nas.trial.training import drain, train
from search_spaces import FeedForward

TRUE = DataConfig(limit=Limit(train=600, validation=200, test=100))
SHUFFLED = replace(TRUE, shuffled_labels=True)
OLD_RUN = Path(__file__).parents[2] / "launch" / "runs" / "old-run"


def prepared(config):
    return prepare(load_images(config), config)


@pytest.mark.parametrize("classes", [None, (3, 8, 1)])
def test_training_labels_are_permuted_and_nothing_else(classes):
    true, shuffled = (prepared(replace(c, classes=classes)) for c in (TRUE, SHUFFLED))
    before, after = true.train.labels, shuffled.train.labels
    assert torch.equal(before.bincount(), after.bincount())
    share = before.bincount() / len(before)
    by_chance, n = (share**2).sum().item(), len(before)
    right = (before == after).double().mean().item()
    assert right == pytest.approx(by_chance, abs=4 * (by_chance * (1 - by_chance) / n) ** 0.5)
    assert torch.equal(true.train.pixels, shuffled.train.pixels)
    assert torch.equal(true.validation.pixels, shuffled.validation.pixels)
    assert torch.equal(true.validation.labels, shuffled.validation.labels)
    assert true.task == shuffled.task
    tests = [prepare_test(load_test_images(c), c) for c in (TRUE, SHUFFLED)]
    assert torch.equal(tests[0].labels, tests[1].labels)
    assert torch.equal(tests[0].pixels, tests[1].pixels)


def test_the_seed_decides_the_shuffle_and_torchs_and_numpys_generators_play_no_part():
    torch.manual_seed(1)
    first = prepared(SHUFFLED).train.labels
    torch.manual_seed(2)
    assert torch.equal(prepared(SHUFFLED).train.labels, first)
    # Of one image a class, labels say which place each came from: the permutation itself.
    many = Images(np.zeros((300, 1, 1, 1), np.uint8), np.arange(300), tuple(map(str, range(300))))
    moves = []
    for seed in (0, 1):
        true, shuffled = (
            prepare(many, DataConfig(seed=seed, shuffled_labels=s)).train.labels
            for s in (False, True)
        )
        moves.append((true[None] == shuffled[:, None]).int().argmax(1))
    assert (moves[0] == moves[1]).double().mean() < 0.05
    assert (moves[0].diff() == 1).double().mean() < 0.05  # and no shift


def test_the_labels_are_not_those_of_the_split_again():
    """The order of the split is another draw: no image has the label of a neighbour in it."""
    true, shuffled = prepared(TRUE).train.labels, prepared(SHUFFLED).train.labels
    agreements = [(true.roll(k) == shuffled).double().mean().item() for k in range(600)]
    assert max(agreements) < 0.1 + 5 * (0.09 / 600) ** 0.5


def test_it_is_learned_by_heart():
    """The training images are learned; validation accuracy is that of guessing among ten."""
    data = prepared(replace(SHUFFLED, limit=Limit(train=200, validation=240)))
    space = FeedForward(kinds=("dense",), hidden_layers=(1,), units=(300,))
    model = space.build(next(iter(space)), data.task)
    recipe = Recipe(
        epochs=60, batch_size=20, optimizer="adam", learning_rate=0.003, weight_decay=0.0,
        adversary="none", selection_images=0,
    )  # fmt: skip
    drain(train(model, data, recipe, None, torch.Generator().manual_seed(0)))
    shares = [
        correct(model, part.images(), part.labels).double().mean().item()
        for part in (data.train, data.validation)
    ]
    assert shares[0] > 0.95
    assert shares[1] < 0.1 + 4 * (0.09 / 240) ** 0.5


def test_it_is_set_and_varied():
    assert load_config("digits", ["data.shuffled_labels=true"]).data.shuffled_labels is True
    config = load_config("digits", ["vary.data.shuffled_labels=[false, true]"])
    plan = config.plan()
    assert plan.decisions["data.shuffled_labels"] == (False, True)
    trials = [plan.template.varied("data.shuffled_labels", value) for value in (False, True)]
    assert [t.data.shuffled_labels for t in trials] == [False, True]
    assert trials[0].key == plan.template.key != trials[1].key


def test_a_run_of_before_opens():
    assert "shuffled_labels" not in (OLD_RUN / "config.yaml").read_text()
    assert Run(OLD_RUN).config.data.shuffled_labels is False
