"""FGSM and PGD against torchattacks and foolbox, on a net trained on real images."""

from __future__ import annotations

import pytest
import torch

from metrics.accuracy import correct, robust_accuracy
from metrics.attacks import FGSM, PGD
from nas.data import DataConfig, Limit, prepare
from nas.datasets import load_images
from nas.training import Recipe, drain, train
from search_spaces import DepthChannels

pytestmark = [
    pytest.mark.data,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Overflow:RuntimeWarning"),
]
EPSILON, STEP, STEPS = 8 / 255, 2 / 255, 7
IMAGES = 1000
TOLERANCE = 0.003


@pytest.fixture(scope="module")
def trained(data_root):
    """Return a Fashion-MNIST net, trained with PGD for one epoch, and 1,000 validation images."""
    limit = Limit(train=3000, validation=IMAGES)
    config = DataConfig(name="fashion-mnist", root=str(data_root), limit=limit)
    data = prepare(load_images(config), config)
    space = DepthChannels(depth=(3,), channels=(16,), stem="small")
    model = space.build(space.architecture({"depth": 3, "channels": 16}), data.task, seed=0)
    recipe = Recipe(epochs=1, batch_size=64, steps=2, selection_images=100)
    drain(train(model, data, recipe, recipe.attack(), torch.Generator().manual_seed(0)))
    return model, data.validation.images(), data.validation.labels


def torchattacks_accuracy(trained, kind, start):
    torchattacks = pytest.importorskip("torchattacks")
    model, x, y = trained
    if kind == "fgsm":
        attack = torchattacks.FGSM(model, eps=EPSILON)
    else:
        attack = torchattacks.PGD(model, EPSILON, STEP, STEPS, random_start=start)
    return correct(model, attack(x, y).detach().clamp(0, 1), y)


def foolbox_accuracy(trained, kind, start):
    foolbox = pytest.importorskip("foolbox")
    model, x, y = trained
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    if kind == "fgsm":
        attack = foolbox.attacks.LinfFastGradientAttack(random_start=False)
    else:
        attack = foolbox.attacks.LinfPGD(abs_stepsize=STEP, steps=STEPS, random_start=start)
    _, adversarial, _ = attack(wrapped, x, y, epsilons=EPSILON)
    return correct(model, adversarial.detach(), y)


@pytest.mark.parametrize("oracle", [torchattacks_accuracy, foolbox_accuracy])
@pytest.mark.parametrize(
    ("kind", "start"), [("fgsm", False), ("pgd", False), ("pgd", True)], ids=str
)
def test_same_robust_accuracy(trained, oracle, kind, start):
    torch.manual_seed(0)
    model, x, y = trained
    theirs = oracle(trained, kind, start) & correct(model, x, y)
    fgsm = FGSM(epsilon=EPSILON)
    pgd = PGD(epsilon=EPSILON, step_size=STEP, steps=STEPS, random_start=start)
    generator = torch.Generator().manual_seed(1)
    attack = fgsm if kind == "fgsm" else pgd
    ours = robust_accuracy(model, x, y, attack, generator=generator, early_exit=False)
    assert 0.3 < ours.accuracy < 0.8  # something to disagree about
    assert abs(ours.accuracy - theirs.double().mean().item()) <= TOLERANCE
