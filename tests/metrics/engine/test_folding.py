"""The fast copy: the same function and the same gradients, or no copy at all."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from public import seeded, top
from torch import nn
from torch.nn import functional

from metrics import FGSM, PGD, gradient_line, robust_accuracy, susceptibility
from metrics.answers import logits_of
from metrics.engine import evaluator
from metrics.engine.folding import (
    AGREEMENT,
    _agree,
    _answers,
    _probes,
    channels_last,
    fast_copy,
)
from metrics.robustness.accuracy import correct
from search_spaces import DepthChannels, Task

EPSILON = 0.1


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


class Around(nn.Module):
    """A small net with something before and behind its convolution."""

    def __init__(self, before=lambda x: x, between=lambda z: z, channels=1):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(channels, 4, 3), nn.Linear(144, 4)
        self.before, self.between = before, between
        self.eval()

    def forward(self, x):
        return self.head(functional.relu(self.between(self.conv(self.before(x)))).flatten(1))


def assert_attacked_as_it_is(model, x):
    """Assert that no number depends on whether a fast copy is tried."""
    y, attack = top(model, x), PGD(epsilon=EPSILON, steps=3)
    fast, plain = (
        robust_accuracy(model, x, y, attack, generator=seeded(), fast=fast)
        for fast in (True, False)
    )
    assert torch.equal(fast.robust, plain.robust)
    assert fast.zero_gradients == plain.zero_gradients


def rounded_straight_through(x):
    with torch.no_grad():
        difference = (x * 8).round() / 8 - x
    return x + difference


@pytest.mark.parametrize("blank", [0.0, 1.0])
def test_blank_first_images_tell_nothing(blank):
    """Of those the traced model's logits and gradients are the model's, whatever was lost."""
    model = Around(rounded_straight_through)
    model.conv.bias.data.fill_(-1.0 if blank else 0.0)
    x = torch.cat([torch.full((2, 1, 8, 8), blank), images(30)])
    y = top(model, x)
    assert fast_copy(model, x) is None
    assert_attacked_as_it_is(model, x)
    lines = [gradient_line(model, x, y, fast=fast).size for fast in (True, False)]
    assert torch.equal(*lines)
    ratios = [
        susceptibility(model, x, radii=(0.2,), fast=fast, generator=seeded()).value
        for fast in (True, False)
    ]
    assert ratios[0] == pytest.approx(ratios[1], rel=1e-3)


def under(context):
    def before(x):
        with context():
            shift = (x * 8).round() / 8 - x
        return x + shift

    return before


def decorated():
    return torch.no_grad()(lambda x: (x * 8).round() / 8)


SWITCHES = {
    "no_grad": under(torch.no_grad),
    "set_grad_enabled": under(lambda: torch.set_grad_enabled(False)),
    "inference_mode": under(torch.inference_mode),
    "a decorator": lambda x: x + (decorated()(x) - x).detach(),
    "autocast": under(lambda: torch.autocast("cpu", dtype=torch.bfloat16)),
    "autocast off": under(lambda: torch.autocast("cpu", enabled=False)),
}


@pytest.mark.parametrize("before", SWITCHES.values(), ids=SWITCHES.keys())
def test_gradients_and_autocast_that_are_switched_in_a_forward(before):
    """A recording runs every operation in the caller's mode."""
    model = Around(before)
    if before is not SWITCHES["autocast off"]:  # which is off all the same
        assert fast_copy(model, images()) is None
    if before is not SWITCHES["inference_mode"]:  # whose tensors no gradient passes
        assert_attacked_as_it_is(model, images(20))


DRAWS = {
    "torch": lambda x: x + 1e-7 * torch.rand(()),
    "rand_like": lambda x: x + 1e-7 * torch.rand_like(x),
    "numpy": lambda x: x + 1e-7 * float(np.random.rand()),  # noqa: NPY002
    "random": lambda x: x + 1e-7 * random.random(),
    "dropout": lambda x: x + 1e-7 * functional.dropout(x, 0.5, training=True),
}


@pytest.mark.parametrize("before", DRAWS.values(), ids=DRAWS.keys())
def test_random_draws_are_not_recorded(before):
    """A number that Python drew would be the same in every pass of the copy."""
    assert fast_copy(Around(before), images()) is None


@pytest.mark.parametrize("part", ["model", "conv"])
def test_a_forward_of_ones_own_is_kept(part):
    model = Around()
    changed = model if part == "model" else model.conv
    plain = changed.forward
    changed.forward = lambda x: -plain(x)
    assert fast_copy(model, images()) is None
    assert_attacked_as_it_is(model, images(20))


def written(write, view=lambda z: z.view(len(z), -1)):
    def between(z):
        write(view(z))
        return z

    return between


def part_set_to_0(v):
    v[:, :20] = 0


def shrunk(v):
    v *= 0.5


WRITES = {
    "mul_": written(lambda v: v.mul_(0.5)),
    "flatten": written(lambda v: v.mul_(0.5), lambda z: z.flatten(1)),
    "transposed": written(lambda v: v.mul_(0.5), lambda z: z.transpose(1, 2)),
    "a part": written(part_set_to_0),
    "*=": written(shrunk),
    "relu_": written(lambda v: functional.relu_(v.sub_(0.3))),
    "inplace": written(lambda v: functional.hardtanh(v, 0, 0.2, inplace=True)),
    "narrow": written(lambda v: v.mul_(0.5), lambda z: z.narrow(1, 0, 2)),
    "a column": written(lambda v: v.mul_(0.5), lambda z: z[:, :, 1]),
}


@pytest.mark.parametrize("between", WRITES.values(), ids=WRITES.keys())
def test_what_is_written_through_a_view_is_not_lost(between):
    """In channels_last strides a view may be a copy."""
    model, x = Around(between=between), images(20)
    quick = fast_copy(model, x)
    if quick is not None:
        assert torch.allclose(logits_of(quick, x), logits_of(model, x), atol=1e-5)
    assert not torch.allclose(logits_of(model, x), logits_of(Around(), x), atol=1e-3)
    assert_attacked_as_it_is(model, x)


class Uncopied(nn.Conv2d):
    """A layer that is its own copy, as large shared embeddings are."""

    def __deepcopy__(self, memo):
        return self


def test_a_part_that_is_its_own_copy_is_not_changed():
    model = Around()
    model.conv = Uncopied(1, 4, 3)
    before = model.conv.weight.clone()
    assert fast_copy(model, images()) is None
    assert model.conv.weight.requires_grad
    assert model.conv.weight.is_contiguous()
    assert torch.equal(model.conv.weight, before)
    with pytest.raises(ValueError, match="float64: expected a model that can be copied"):
        susceptibility(model, images(), float64=True)
    assert model.conv.weight.dtype == torch.float32
    assert_attacked_as_it_is(model, images(20))


@pytest.mark.parametrize(
    "kind", ["register_module_forward_hook", "register_module_forward_pre_hook"]
)
def test_hooks_on_all_modules_are_kept(kind):
    handle = getattr(nn.modules.module, kind)(lambda *_: None)
    try:
        assert fast_copy(Around(), images()) is None
    finally:
        handle.remove()
    assert fast_copy(Around(), images()) is not None


def test_a_view_as_another_type_is_none_of_stderrs_business(capfd):
    """It cannot be reshaped to; torch prints where a recorded model fails."""

    def truncated(x):
        kept = (x.view(torch.int32) & ~0xFFFF).view(torch.float32)
        return x + (kept - x).detach()

    assert_attacked_as_it_is(Around(truncated), images(20))
    assert capfd.readouterr().err == ""


def test_a_copy_that_fails_later_gives_way_to_the_model(monkeypatch):
    class Fails(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model, self.passes = model, 0

        def forward(self, x):
            self.passes += 1
            if self.passes > 3:
                raise IndexError("of this a recording knows nothing")
            return self.model(x)

    model, x = Around(), images(20)
    y, attack = top(model, x), PGD(epsilon=EPSILON, steps=3)
    plain = robust_accuracy(model, x, y, attack, generator=seeded(), fast=False)
    monkeypatch.setattr(evaluator, "fast_copy", lambda model, images: Fails(model))
    found = robust_accuracy(model, x, y, attack, generator=seeded(), batch_size=5)
    assert torch.equal(found.robust, plain.robust)


def test_a_model_of_parts_called_more_than_once():
    """A loop over one block, and two convolutions that share a weight."""

    class Recurrent(nn.Module):
        def __init__(self, tied):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 3, padding=1)
            self.norm, self.head = nn.BatchNorm2d(1), nn.Linear(64, 4)
            if tied:
                self.b.weight = self.a.weight

        def forward(self, x):
            for _ in range(3):
                x = functional.relu_(self.norm(self.b(self.a(x))))
            return self.head(x.flatten(1))

    for tied in (False, True):
        model = trained_statistics(Recurrent(tied)).eval()
        assert_attacked_as_it_is(model, images(20))


class Normed(nn.Module):
    """A norm between convolutions, as a module or as a function."""

    def __init__(self, norm):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 4, 3, padding=1)
        self.norm = norm
        self.head = nn.Linear(4 * 36, 4)

    def forward(self, x):
        return self.head(self.two(self.norm(self.one(x))).flatten(1))


NORMS = {
    "instance": lambda: nn.InstanceNorm2d(5, affine=True),
    "instance, running": lambda: nn.InstanceNorm2d(5, affine=True, track_running_stats=True),
    "instance, as a function": lambda: functional.instance_norm,
    "group": lambda: nn.GroupNorm(5, 5),
    "batch": lambda: nn.BatchNorm2d(5),
}


@pytest.mark.parametrize("make", NORMS.values(), ids=NORMS.keys())
@pytest.mark.parametrize("count", [1, 2])
def test_gradients_of_one_image_are_right(make, count):
    """torch's own is wrong for an instance norm between channels_last convolutions."""
    torch.manual_seed(0)
    model = Normed(make()).double().eval()
    x = torch.rand(count, 3, 6, 6, dtype=torch.float64)
    quick = fast_copy(model, x)
    assert (quick is None) == (model.norm is functional.instance_norm)
    if quick is None:
        return
    weights = torch.tensor([1.0, -2.0, 3.0, 0.5]).double()

    def value(images):
        with torch.no_grad():
            return (model(images) * weights).sum()

    leaf = x.clone().requires_grad_()
    (quick(leaf) * weights).sum().backward()
    for place in range(0, x[0].numel(), 7):
        step = torch.zeros(x[0].numel(), dtype=torch.float64)
        step[place] = 1e-6
        step = step.view(x[:1].shape)
        moved = [torch.cat([x[:1] + s * step, x[1:]]) for s in (1, -1)]
        expected = (value(moved[0]) - value(moved[1])) / 2e-6
        assert float(leaf.grad[0].flatten()[place]) == pytest.approx(float(expected), abs=1e-6)
