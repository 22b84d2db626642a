"""What Cubuk et al. 2017 print of plain nets on MNIST, asked of nets trained here."""

from __future__ import annotations

import pytest
import torch

from metrics import FGSM, PGD, StepLL
from metrics.universality import compare, error_curve, fit_sample, logit_differences
from nas.data.arrays import prepare, prepare_test
from nas.data.config import DataConfig, Limit
from nas.data.datasets import load_images, load_test_images
from nas.trial.recipe import Recipe
from nas.trial.training import drain, train
from search_spaces import FeedForward

pytestmark = pytest.mark.data
IMAGES = DataConfig(name="mnist", limit=Limit(train=10_000, validation=100, test=4000))
EPSILONS = (0.001, 0.002, 0.004, 0.006, 0.009, 0.013, 0.02, 0.03, 0.04, 0.06, 0.09, 0.13)


def trained(hidden_layers):
    space = FeedForward(kinds=("dense",), hidden_layers=(hidden_layers,), units=(100,))
    data = prepare(load_images(IMAGES), IMAGES)
    choices = {name: values[0] for name, values in space.decisions().items()}
    model = space.build(space.architecture(choices), data.task, seed=0)
    recipe = Recipe(epochs=3, adversary="none", learning_rate=0.05, selection_images=0)
    drain(train(model, data, recipe, None, torch.Generator().manual_seed(0)))
    return model.eval()


@pytest.fixture(scope="module")
def test_part():
    split = prepare_test(load_test_images(IMAGES), IMAGES)
    return split.images(), split.labels


@pytest.fixture(scope="module")
def dense():
    return trained(2)


@pytest.mark.parametrize(
    ("attack", "low", "high"),
    [
        (FGSM(), 0.9, 1.3),
        (FGSM(norm="l2", epsilon=1.0), 0.9, 1.3),
        (PGD(steps=5), 0.9, 1.3),
    ],
    ids=["fgsm", "l2-fgsm", "pgd"],
)
def test_the_error_grows_about_as_epsilon(attack, low, high, dense, test_part):
    far = 15 if attack.distance == "l2" else 1
    law = error_curve(dense, *test_part, attack, [far * epsilon for epsilon in EPSILONS]).law
    assert low < law.exponent < high
    assert law.interval[1] - law.interval[0] < 0.6


def test_under_step_ll_the_error_accelerates(dense, test_part):
    law = error_curve(dense, *test_part, StepLL(), EPSILONS).law
    assert 1.5 < law.line < 3.0  # the paper: 1.8 to 2.5, 2.3 on MNIST
    assert law.exponent < law.line


def test_differences_of_logits_begin_with_the_powers_0_1_2(dense, test_part):
    differences = logit_differences(dense, test_part[0])
    for place, expected in enumerate((0, 1, 2)):
        law = fit_sample(differences[:, place])
        assert law.interval[0] - 0.5 < expected + 1 < law.interval[1] + 0.5


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_linear_response_foresees_the_smallest_epsilons(norm, dense, test_part):
    images, labels = (part[:2000] for part in test_part)
    found = compare(dense, images, labels, norm=norm)
    assert found.lowest_decile == pytest.approx(1, abs=0.05)
