"""Our attacks against torchattacks and foolbox, on nets trained here on real images.

Deterministic L-infinity attacks must give the same pixels, up to flipped signs of gradients that
are nearly zero; the others the same robust accuracy. Other libraries count the last iterate, so
``early_exit=False``. Batches are of 128: torchattacks divides the loss by their size, and only a
division by a power of two leaves the gradient's rounding alone.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import pytest
import torch

from metrics import AutoAttack
from metrics.attacks import APGD, FAB, FGSM, PGD, StepLL
from metrics.robustness.accuracy import correct, robust_accuracy
from nas.data.arrays import prepare
from nas.data.config import DataConfig, Limit
from nas.data.datasets import load_images
from nas.trial.recipe import Recipe
from nas.trial.training import drain, train
from search_spaces import DepthChannels

torchattacks = pytest.importorskip("torchattacks")
foolbox = pytest.importorskip("foolbox")
pytestmark = [
    pytest.mark.xdist_group("oracles"),  # its nets are trained once
    pytest.mark.data,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Overflow:RuntimeWarning"),
]
EPSILON, STEP, L2, L2_STEP = 8 / 255, 2 / 255, 0.5, 0.1
IMAGES, BATCH = 1024, 128
DIFFERING_PIXELS = 1e-4
DETERMINISTIC, RANDOM, EUCLIDEAN = 0.001 + 1e-9, 0.005 + 1e-9, 0.003 + 1e-9


def train_net(data_root, adversary, stride):
    """Return a net and 1,024 Fashion-MNIST images, of which every ``stride``-th pixel is left."""
    limit = Limit(train=3000, validation=IMAGES)
    config = DataConfig(name="fashion-mnist", root=str(data_root), limit=limit)
    images = load_images(config)
    images = replace(images, pixels=images.pixels[:, :, ::stride, ::stride])
    data = prepare(images, config)
    space = DepthChannels(depth=(3,), channels=(16,), stem="small")
    model = space.build(space.architecture({"depth": 3, "channels": 16}), data.task, seed=0)
    recipe = Recipe(epochs=2, batch_size=64, adversary=adversary, steps=2, selection_images=100)
    drain(train(model, data, recipe, recipe.attack(), torch.Generator().manual_seed(0)))
    return model.eval(), data.validation.images(), data.validation.labels


@pytest.fixture(scope="module", params=["none", "pgd"])
def trained(request, data_root):
    """Return a net, standard or adversarially trained, and 1,024 images, to compare pixels of."""
    return train_net(data_root, request.param, stride=1)


@pytest.fixture(scope="module", params=["none", "pgd"])
def coarse(request, data_root):
    """Return the same for images of 14 x 14: accuracies need many images, not large ones."""
    return train_net(data_root, request.param, stride=2)


def theirs(library, model, x, y, kind, *, seed=0, **settings):
    """Return a library's adversarial images."""
    torch.manual_seed(seed)
    batches = zip(x.split(BATCH), y.split(BATCH), strict=True)
    return torch.cat([_theirs(library, model, a, b, kind, **settings) for a, b in batches])


def _theirs(library, model, x, y, kind, *, norm="linf", start=False, steps=7):
    if library == "torchattacks":
        make = {
            ("fgsm", "linf"): lambda: torchattacks.FGSM(model, eps=EPSILON),
            ("pgd", "linf"): lambda: torchattacks.PGD(
                model, EPSILON, STEP, steps, random_start=start
            ),
            ("pgd", "l2"): lambda: torchattacks.PGDL2(
                model, L2, L2_STEP, steps, random_start=start
            ),
        }
        return make[kind, norm]()(x, y).detach()
    fb = foolbox.attacks
    make = {
        ("fgsm", "linf"): lambda: fb.LinfFastGradientAttack(random_start=False),
        ("fgsm", "l2"): lambda: fb.L2FastGradientAttack(random_start=False),
        ("pgd", "linf"): lambda: fb.LinfPGD(abs_stepsize=STEP, steps=steps, random_start=start),
        ("pgd", "l2"): lambda: fb.L2PGD(abs_stepsize=L2_STEP, steps=steps, random_start=start),
    }
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    epsilon = EPSILON if norm == "linf" else L2
    return make[kind, norm]()(wrapped, x, y, epsilons=epsilon)[1].detach()


def ours(kind, *, norm="linf", start=False, steps=7):
    epsilon, step = (EPSILON, STEP) if norm == "linf" else (L2, L2_STEP)
    if kind == "fgsm":
        return FGSM(epsilon=epsilon, norm=norm)
    return PGD(epsilon=epsilon, step_size=step, steps=steps, norm=norm, random_start=start)


def standing(model, x, y, adversarial):
    """Return which images are right when clean and in ``adversarial``."""
    return correct(model, x, y) & correct(model, adversarial.clamp(0, 1), y)


def share_right(model, x, y, adversarial):
    """Return the accuracy on ``adversarial``, of images that are right when clean."""
    return standing(model, x, y, adversarial).double().mean().item()


LIBRARIES = ["torchattacks", "foolbox"]


@cache
def attacked(model, x, y, kind, steps):
    """Return our images and our robust accuracy, once for both libraries."""
    attack = ours(kind, steps=steps)
    batches = zip(x.split(BATCH), y.split(BATCH), strict=True)
    images = torch.cat([attack(model, a, b) for a, b in batches])
    return images, robust_accuracy(model, x, y, attack, early_exit=False).accuracy


@cache
def our_accuracy(model, x, y, kind, norm, start):
    """Return our robust accuracy after 20 steps, once for both libraries."""
    attack = ours(kind, norm=norm, start=start, steps=20)
    generator = torch.Generator().manual_seed(1)
    return robust_accuracy(model, x, y, attack, generator=generator, early_exit=False).accuracy


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    ("kind", "steps"),
    [
        ("fgsm", 1),
        ("pgd", 7),
        # 7 steps of 2/255 are at the edge of the ball as well, and the next test takes 20
        pytest.param("pgd", 20, marks=pytest.mark.slow),
    ],
)
def test_deterministic_linf_attacks_give_the_same_pixels(trained, library, kind, steps):
    model, x, y = trained
    adversarial, accuracy = attacked(model, x, y, kind, steps)
    other = theirs(library, model, x, y, kind, steps=steps)
    # One step of rounding aside: a flipped sign is off by two whole steps.
    differing = ((adversarial - other).abs() > 1e-6).double().mean().item()
    expected = share_right(model, x, y, other)
    print(f"{library} {kind}-{steps}: {accuracy} {expected}, pixels {differing:.1e}")
    assert differing <= DIFFERING_PIXELS
    assert abs(accuracy - expected) <= DETERMINISTIC
    assert 0.05 < expected < 0.85  # something to disagree about


@pytest.mark.parametrize(
    "library", ["torchattacks", pytest.param("foolbox", marks=pytest.mark.slow)]
)
def test_a_random_start_gives_the_same_robust_accuracy(trained, library):
    model, x, y = trained
    expected = share_right(model, x, y, theirs(library, model, x, y, "pgd", start=True, steps=20))
    found = our_accuracy(model, x, y, "pgd", "linf", True)
    print(f"{library} random start: {found} {expected}")
    assert abs(found - expected) <= RANDOM


@pytest.mark.parametrize(
    ("library", "kind"),
    [
        ("foolbox", "fgsm"),
        ("torchattacks", "pgd"),
        ("foolbox", "pgd"),
    ],
)
def test_l2_attacks_give_the_same_robust_accuracy(coarse, library, kind):
    model, x, y = coarse
    other = theirs(library, model, x, y, kind, norm="l2", steps=20)
    expected = share_right(model, x, y, other)
    found = our_accuracy(model, x, y, kind, "l2", False)
    print(f"{library} l2 {kind}: {found} {expected}")
    assert abs(found - expected) <= EUCLIDEAN


def test_a_random_start_in_l2_gives_the_same_robust_accuracy(coarse):
    """Of foolbox; torchattacks' start is nearer the middle of the ball.

    The two draw other starts, so an image may fall to one and stand against the other. Were both
    equally strong, either would be as likely for each such image: the difference would be a sum of
    that many fair coins, +1 or -1, of which 3 standard errors are allowed (McNemar 1947).
    """
    model, x, y = coarse
    attack, generator = ours("pgd", norm="l2", start=True, steps=20), torch.Generator()
    generator.manual_seed(1)
    mine = robust_accuracy(model, x, y, attack, generator=generator, early_exit=False).robust
    other = theirs("foolbox", model, x, y, "pgd", norm="l2", start=True, steps=20)
    their = standing(model, x, y, other)
    ahead, behind = int((mine & ~their).sum()), int((their & ~mine).sum())
    print(f"foolbox l2 start: {ahead} stand against ours alone, {behind} against theirs alone")
    assert 0 < ahead + behind < 0.03 * len(y)  # with many, whatever happens would be allowed
    assert abs(ahead - behind) <= 3 * math.sqrt(ahead + behind)


def test_step_ll_is_targeted_fgsm_towards_the_least_likely_class(trained):
    model, x, y = trained
    with torch.no_grad():
        least = model(x).argmin(dim=1)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.LinfPGD(abs_stepsize=EPSILON, steps=1, random_start=False)
    criterion = foolbox.criteria.TargetedMisclassification(least)
    other = attack(wrapped, x, criterion, epsilons=EPSILON)[1].detach()
    differing = ((StepLL(epsilon=EPSILON)(model, x) - other).abs() > 1e-6).double().mean().item()
    assert differing <= DIFFERING_PIXELS


@pytest.mark.parametrize(("loss", "seeds"), [("ce", 3), ("dlr", 1)])
def test_apgd_is_as_strong_as_torchattacks_and_stronger_than_pgd(coarse, loss, seeds):
    """On 500 images; torchattacks' APGD is the code of the paper's authors.

    One random start moves the accuracy by 0.2 to 0.6 points, theirs and ours, so means of several
    are compared for the cross entropy.
    """
    model, x, y = coarse
    x, y = x[:500], y[:500]
    right = correct(model, x, y)
    found, expected = [], []
    for seed in range(seeds):
        other = torchattacks.APGD(model, eps=EPSILON, steps=30, n_restarts=1, loss=loss, seed=seed)
        adversarial = other(x[right], y[right]).detach().clamp(0, 1)
        expected.append(correct(model, adversarial, y[right]).sum().item() / len(y))
        attack = APGD(epsilon=EPSILON, steps=30, loss=loss)
        generator = torch.Generator().manual_seed(seed)
        found.append(robust_accuracy(model, x, y, attack, generator=generator).accuracy)
    pgd = PGD(epsilon=EPSILON, step_size=STEP, steps=20)
    generator = torch.Generator().manual_seed(0)
    judge = robust_accuracy(model, x, y, pgd, generator=generator, early_exit=False).accuracy
    print(f"apgd-{loss}: {found} torchattacks {expected} pgd-20 {judge}")
    tolerance = 0.003 if loss == "ce" else 0.006
    assert abs(sum(found) - sum(expected)) / seeds <= tolerance + 1e-9
    if loss == "ce":
        assert max(found) <= judge


def suites(model, x, y, norm, epsilon):
    """Return the accuracies that AutoAttack's standard version leaves: ours and theirs."""
    name = {"linf": "Linf", "l2": "L2"}[norm]
    attack = torchattacks.AutoAttack(model, norm=name, eps=epsilon, n_classes=10, seed=0)
    expected = share_right(model, x, y, attack(x, y))
    generator = torch.Generator().manual_seed(0)
    found = AutoAttack(norm=norm, epsilon=epsilon).run(model, x, y, generator=generator)
    return found.accuracy, expected


@pytest.mark.slow
def test_the_suite_leaves_what_the_authors_does(coarse):
    """Same budgets; half a point is less than one image of 128."""
    model, x, y = coarse
    found, expected = suites(model, x[:BATCH], y[:BATCH], "linf", EPSILON)
    assert found == pytest.approx(expected, abs=1 / BATCH + 1e-9)


@pytest.mark.slow
def test_the_suite_leaves_what_the_authors_does_in_l2(trained):
    """On images of 28 x 28: the start of their Square in L2 takes none of 14 x 14."""
    model, x, y = trained
    found, expected = suites(model, x[:32], y[:32], "l2", L2)
    assert found == pytest.approx(expected, abs=1 / 32 + 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "name"), [("linf", "Linf"), ("l2", "L2")])
def test_fab_finds_perturbations_as_small_as_the_authors(coarse, norm, name):
    """The mean over images of the smallest perturbations found, after 20 steps to 3 classes."""
    model, x, y = coarse
    right = correct(model, x, y)
    x, y = x[right][:BATCH], y[right][:BATCH]
    far = {"linf": 1.0, "l2": 10.0}[norm]
    theirs = torchattacks.FAB(
        model, norm=name, eps=far, steps=20, multi_targeted=True, n_classes=4, n_restarts=1
    )(x, y)
    ours_ = FAB(epsilon=far, norm=norm, steps=20, targets=3)(model, x, y)
    means = []
    for images in (ours_, theirs):
        delta = (images - x).flatten(1)
        length = delta.abs().amax(dim=1) if norm == "linf" else delta.norm(dim=1)
        broken = ~correct(model, images, y)
        assert broken.double().mean() > 0.98
        means.append(length[broken].mean().item())
    assert means[0] <= 1.02 * means[1]
