"""The fast path: the same function, the same mask, and an honest count of what was spent."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from metrics.answers import logits_of
from metrics.attacks import APGD, FGSM, PGD, Noise, Square, StepLL
from metrics.left_as_found import evaluating
from metrics.robustness.accuracy import correct, robust_accuracy
from nas.trial.recipe import Recipe
from nas.trial.training import drain, train
from search_spaces import DepthChannels

EPSILON = 0.1
ATTACKS = [
    FGSM(epsilon=EPSILON),
    StepLL(epsilon=EPSILON),
    PGD(epsilon=EPSILON, steps=10),
    PGD(epsilon=EPSILON, steps=5, restarts=3),
    PGD(epsilon=0.8, steps=10, norm="l2"),
    PGD(epsilon=EPSILON, steps=5, target="runner-up"),
    APGD(epsilon=EPSILON, steps=20),
    APGD(epsilon=EPSILON, steps=20, loss="dlr", restarts=2),
    Square(epsilon=EPSILON, queries=50),
    Noise(epsilon=EPSILON, draws=5),
]


@pytest.fixture(scope="module")
def robust_net(digits):
    """Return a small net trained under PGD."""
    space = DepthChannels(depth=(3,), channels=(16,), stem="small")
    model = space.build(space.architecture({"depth": 3, "channels": 16}), digits.task, seed=0)
    recipe = Recipe(epochs=4, batch_size=64, epsilon=EPSILON, steps=3, selection_images=50)
    drain(train(model, digits, recipe, recipe.attack(), torch.Generator().manual_seed(0)))
    return model


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
@pytest.mark.parametrize("net", ["digits_net", "robust_net"])
def test_the_fast_mask_is_the_plain_mask(attack, net, request, digits):
    model = request.getfixturevalue(net)
    x, y = digits.validation.images(), digits.validation.labels
    results = [
        robust_accuracy(model, x, y, attack, generator=torch.Generator().manual_seed(0), fast=fast)
        for fast in (True, False)
    ]
    assert torch.equal(results[0].robust, results[1].robust)
    assert 0 < results[0].accuracy < correct(model, x, y).double().mean().item() + 1e-9


@pytest.mark.parametrize("net", ["digits_net", "robust_net"])
def test_broken_means_wrong_at_any_visited_iterate(net, request, digits):
    """PGD written out by hand, on the model itself, without a copy and without dropping rows."""
    model = request.getfixturevalue(net)
    x, y = digits.validation.images(), digits.validation.labels
    standing = correct(model, x, y)
    adversarial = x
    with evaluating(model):
        for _ in range(8):
            leaf = adversarial.clone().requires_grad_()
            loss = nn.functional.cross_entropy(model(leaf), y, reduction="sum")
            step = 0.02 * torch.autograd.grad(loss, leaf)[0].sign()
            moved = torch.clamp(adversarial + step - x, -EPSILON, EPSILON)
            adversarial = torch.clamp(x + moved, 0, 1)
            standing &= correct(model, adversarial, y)
    attack = PGD(epsilon=EPSILON, step_size=0.02, steps=8, random_start=False)
    assert torch.equal(robust_accuracy(model, x, y, attack).robust, standing)
    last = correct(model, x, y) & correct(model, adversarial, y)
    found = robust_accuracy(model, x, y, attack, early_exit=False)
    assert torch.equal(found.robust, last)


def test_what_was_spent_is_counted(digits_net, digits):
    """By hand: the clean pass, the look at each iterate, the check of what broke."""
    x, y = digits.validation.images(), digits.validation.labels
    right = int(correct(digits_net, x, y).sum())
    fgsm = robust_accuracy(digits_net, x, y, FGSM(epsilon=EPSILON))
    broken = right - int(fgsm.robust.sum())
    assert fgsm.backwards == right
    assert fgsm.forwards == len(y) + 2 * right + broken
    plain = robust_accuracy(digits_net, x, y, FGSM(epsilon=EPSILON), fast=False)
    assert plain.forwards == len(y) + 2 * right
    square = robust_accuracy(digits_net, x, y, Square(epsilon=EPSILON, queries=3))
    assert square.backwards == 0
    whole = robust_accuracy(
        digits_net, x, y, PGD(epsilon=EPSILON, steps=10, random_start=False), early_exit=False
    )
    early = robust_accuracy(digits_net, x, y, PGD(epsilon=EPSILON, steps=10, random_start=False))
    assert whole.backwards == 10 * right
    assert early.backwards < 0.7 * whole.backwards


def test_a_break_that_only_the_copy_sees_does_not_count(digits_net, digits, monkeypatch):
    """A copy that rounds badly: what it calls broken is checked, and searched for again."""
    from metrics.engine import evaluator as fast

    class Rounded(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            z = self.model(x)
            return z + 3 * torch.sin(1e3 * z)  # other classes win now and then

    x, y = digits.validation.images(), digits.validation.labels
    attack = PGD(epsilon=0.03, steps=5, random_start=False)
    plain = robust_accuracy(digits_net, x, y, attack, fast=False)
    monkeypatch.setattr(fast, "fast_copy", lambda model, images: Rounded(model))
    found = robust_accuracy(digits_net, x, y, attack)
    with evaluating(digits_net):
        copy_wrong = logits_of(Rounded(digits_net), x).argmax(1) != y
    assert (copy_wrong & plain.clean).sum() > 10
    # Where the copy broke an image that the model holds, the model's own search decides.
    assert torch.equal(found.robust | ~copy_wrong, plain.robust | ~copy_wrong)


@pytest.mark.parametrize("batch_size", [20, 60])
@pytest.mark.parametrize(
    "attack",
    [
        Square(epsilon=EPSILON, queries=30),
        Noise(epsilon=EPSILON, draws=4),
        PGD(epsilon=EPSILON, steps=2, restarts=3),
    ],
    ids=repr,
)
def test_an_images_draws_do_not_depend_on_the_others(attack, batch_size, digits_net, digits):
    """The first twenty are broken at the first look, or not: the other forty meet the same."""
    from metrics.engine.evaluator import evaluator

    x, y = digits.validation.images(slice(60)), digits.validation.labels[:60]
    wrong_first = y.clone()
    wrong_first[:20] = logits_of(digits_net, x[:20]).argmin(1)
    found = []
    for labels in (y, wrong_first):
        with evaluator(digits_net, x, labels, batch_size=batch_size) as ready:
            generator = torch.Generator().manual_seed(0)
            found.append(
                ready.search(attack, torch.arange(60), generator, keep_images=True).images[20:]
            )
    assert torch.equal(found[0], found[1])


@pytest.mark.parametrize("attack", [PGD(epsilon=EPSILON, steps=2), APGD(epsilon=EPSILON, steps=3)])
def test_more_restarts_are_never_weaker_over_many_batches(attack, digits_net, digits):
    from dataclasses import replace

    x, y = digits.validation.images(), digits.validation.labels
    masks = [
        robust_accuracy(
            digits_net,
            x,
            y,
            replace(attack, restarts=restarts),
            generator=torch.Generator().manual_seed(0),
            batch_size=30,
        ).robust
        for restarts in (1, 3)
    ]
    assert not (masks[1] & ~masks[0]).any()
    assert (masks[0] & ~masks[1]).any()
