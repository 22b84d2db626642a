"""The fast path: the same function, the same mask, and an honest count of what was spent."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from metrics.answers import logits_of
from metrics.attacks import APGD, FGSM, PGD, Noise, Square, StepLL
from metrics.engine.folding import (
    AGREEMENT,
    _agree,
    _answers,
    _probes,
    channels_last,
    fast_copy,
)
from metrics.left_as_found import evaluating
from metrics.robustness.accuracy import correct, robust_accuracy
from nas.trial.recipe import Recipe
from nas.trial.training import drain, train
from search_spaces import DepthChannels, Task

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


class Residual(nn.Module):
    """What must not be folded: a shared batch norm, a convolution with two readers."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.relu = nn.BatchNorm2d(4), nn.ReLU()
        self.head = nn.Linear(4 * 64, 10)

    def forward(self, x):
        a = self.first(x)
        b = self.relu(self.norm(self.second(self.norm(a)))) + a
        return self.head(b.flatten(1))


def trained_statistics(model):
    """Give batch norms statistics that are not 0 and 1."""
    torch.manual_seed(1)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_()
            m.running_var.uniform_(0.5, 2)
            m.weight.data.normal_()
    return model


def images(n=6, channels=1, side=8):
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_copy_folds_every_batch_norm_of_our_nets(channels):
    from search_spaces import Task

    space = DepthChannels(depth=(3,), channels=(8,), stem="small")
    task = Task((channels, 8, 8), 10, mean=(0.4,) * channels, std=(0.2,) * channels)
    model = trained_statistics(space.build(space.architecture({"depth": 3, "channels": 8}), task))
    x = images(channels=channels)
    quick = fast_copy(model.eval(), x)
    assert quick is not None
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    nodes = [n for n in quick.graph.nodes if n.op == "call_module"]
    used = [quick.get_submodule(n.target) for n in nodes]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in used)
    assert all(m.inplace for m in used if isinstance(m, nn.ReLU))
    assert not any(p.requires_grad for p in quick.parameters())
    assert torch.allclose(logits_of(quick, x), logits_of(model, x), atol=1e-4)


class TwoReaders(nn.Module):
    """A convolution that a batch norm of its own reads, and the sum behind it too."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.head = nn.Linear(4 * 64, 10)

    def forward(self, x):
        a = self.conv(x)
        return self.head((self.norm(a) + a).flatten(1))


class SharedConvolution(nn.Module):
    """A convolution that is called twice, once with a batch norm behind it."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.head = nn.Linear(4 * 64, 10)

    def forward(self, x):
        return self.head((self.norm(self.conv(x)) + self.conv(1 - x)).flatten(1))


@pytest.mark.parametrize("make", [Residual, TwoReaders, SharedConvolution])
def test_what_is_shared_is_left_alone(make):
    model = trained_statistics(make()).eval()
    quick = fast_copy(model, images())
    assert quick is not None
    assert torch.allclose(logits_of(quick, images()), logits_of(model, images()), atol=1e-4)


def test_channels_last_strides_also_for_one_channel():
    v = torch.rand(4, 1, 3, 5)
    assert torch.equal(channels_last(v), v)
    assert channels_last(v).stride() == (15, 1, 5, 1)


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        return self.head(x.flatten(1)) * (2.0 if x.sum() > 1e9 else 1.0)


def test_a_model_that_cannot_be_traced_is_attacked_as_it_is():
    model = Branching()
    assert fast_copy(model, images()) is None
    y = torch.arange(6)
    fast = robust_accuracy(model, images(), y, FGSM())
    assert torch.equal(fast.robust, robust_accuracy(model, images(), y, FGSM(), fast=False).robust)


def test_a_model_with_hooks_keeps_them():
    model = Residual().eval()
    seen = []
    model.norm.register_forward_hook(lambda *_: seen.append(1))
    assert fast_copy(model, images()) is None
    robust_accuracy(model, images(), torch.arange(6), FGSM())
    assert seen


def test_a_model_that_is_never_twice_the_same_has_no_copy():
    class Random(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :10] + torch.randn_like(x.flatten(1)[:, :10])

    assert fast_copy(Random(), images()) is None


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


class StraightThrough(nn.Module):
    """Rounds its images and lets the gradient pass: tracing loses the ``no_grad``."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        with torch.no_grad():
            difference = (x * 8).round() / 8 - x
        return self.net(x + difference)


def test_a_copy_with_another_gradient_is_not_used(digits_net, digits):
    """Its logits agree to the last digit, but the traced gradient is zero."""
    model = StraightThrough(digits_net).eval()
    x, y = digits.validation.images(), digits.validation.labels
    traced = torch.fx.symbolic_trace(model)
    assert torch.equal(logits_of(traced, x), logits_of(model, x))
    assert fast_copy(model, x[:2]) is None
    attack = PGD(epsilon=EPSILON, steps=5, random_start=False)
    results = [robust_accuracy(model, x, y, attack, fast=fast) for fast in (True, False)]
    assert torch.equal(results[0].robust, results[1].robust)
    assert results[0].accuracy < correct(model, x, y).double().mean().item() - 0.3


def test_rounding_at_a_kink_costs_no_copy():
    """In float32 some of these gradients differ by more than a thousandth; in float64 none do."""
    space = DepthChannels(depth=(16,), channels=(64,), stem="small")
    architecture = space.architecture({"depth": 16, "channels": 64})
    rounded = 0
    for seed in range(1, 4):
        model = space.build(architecture, Task.plain((3, 32, 32), 10), seed=seed)
        x = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0  # the statistics of x: without any the net is dead
        model(x)
        model.eval()
        copied = fast_copy(model, x[:2])
        assert copied is not None
        probes = _probes(x)
        rounded += not all(_agree(_answers(model, probes), _answers(copied, probes), AGREEMENT))
    assert rounded


def test_a_view_behind_convolutions_is_no_obstacle():
    class Viewing(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(144, 10)

        def forward(self, x):
            return self.head(self.conv(x).view(x.size(0), -1))

    model = Viewing().eval()
    quick = fast_copy(model, images())
    assert quick is not None
    assert torch.allclose(logits_of(quick, images()), logits_of(model, images()), atol=1e-5)


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
