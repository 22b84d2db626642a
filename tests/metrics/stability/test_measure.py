"""Adversarial and random susceptibility against loops, formulas and hand-made sets."""

from __future__ import annotations

import math

import pytest
import torch
from public import seeded
from torch import nn

from metrics import correct, gradient_line
from metrics.robustness.accuracy import wilson
from metrics.stability import REGIONS, Share, UnitDraws, measure

DELTAS = (0.5, 2.0, 8.0)


def by_loops(model, x, y, line, deltas, draws, *, clip=False):
    """Return ``(deltas, N)``: hits by the plain loop over images, multiples and draws."""
    hits = torch.zeros(len(deltas), len(x), dtype=torch.long)
    right = correct(model, x, y)
    with torch.no_grad():
        for i in (right & line.size.isfinite()).nonzero().flatten().tolist():
            for d, delta in enumerate(deltas):
                noisy = x[i] + delta * float(line.size[i]) * draws
                noisy = noisy.clamp(0, 1) if clip else noisy
                hits[d, i] = int((model(noisy).argmax(dim=1) != y[i]).sum())
    return hits


@pytest.fixture(scope="module")
def some(digits):
    return digits.validation.images()[:40], digits.validation.labels[:40]


@pytest.mark.parametrize(
    ("region", "clip", "batch_size"),
    [*((region, False, None) for region in REGIONS), ("ball", False, 7), ("cube", True, 30)],
)
def test_hits_are_those_of_the_plain_loop(region, clip, batch_size, digits_net, some):
    x, y = some
    settings = {"draws": 60, "region": region, "seed": 5, "clip": clip, "batch_size": batch_size}
    counted = measure(digits_net, x, y, deltas=DELTAS, count=True, **settings)
    line = gradient_line(digits_net, x, y, mode="margin", clip=clip)
    draws = UnitDraws.of((1, 8, 8), 60, region=region, seed=5).at(range(60))
    expected = by_loops(digits_net, x, y, line, DELTAS, draws, clip=clip)
    assert torch.equal(counted.hits, expected)
    assert expected.sum() > 0
    share = measure(digits_net, x, y, deltas=DELTAS, **settings)
    assert share.hits is None
    assert torch.equal(share.hit, expected > 0)
    assert torch.equal(counted.hit, expected > 0)
    assert torch.equal(share.size.nan_to_num(-1), counted.size.nan_to_num(-1))


def test_the_attack_is_that_of_the_line(digits_net, some):
    x, y = some
    found = measure(digits_net, x, y, draws=2, deltas=[1])
    line = gradient_line(digits_net, x, y, mode="margin")
    right = correct(digits_net, x, y)
    assert torch.equal(found.right, right)
    assert torch.equal(found.size[right], line.size[right])
    assert found.size[~right].isnan().all()
    assert torch.equal(found.attacked, right & line.size.isfinite())
    delta = (line.images - x).double().flatten(1)
    for norm, own in zip((1, 2, math.inf), found.lengths, strict=True):
        of = delta.norm(norm, dim=1)
        assert torch.allclose(own[found.attacked], of[found.attacked])
        assert own[~found.attacked].isnan().all()
    (_, _), (mean, sd), _ = found.norms()
    sizes = line.size[found.attacked]
    assert mean == pytest.approx(float(sizes.mean()), rel=1e-4)
    assert sd == pytest.approx(float(sizes.std()), rel=1e-4)


class Plane(nn.Module):
    """Two classes on the two sides of x_1 = 0.5, by logits of any size."""

    def __init__(self, slope=1.0):
        super().__init__()
        self.slope = slope

    def forward(self, x):
        z = self.slope * (x.flatten(1)[:, 0] - 0.5)
        return torch.stack([torch.zeros_like(z), z], dim=1)


def ten_points():
    """Return points at known distances of the plane, and labels of which two are wrong."""
    x = torch.full((10, 1, 1, 6), 0.5)
    x[:, 0, 0, 0] += torch.tensor(
        [-0.5, -0.405, -0.315, -0.205, -0.105, 0.105, 0.205, 0.315, 0.405, 0.5]
    )
    y = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    y[[0, 9]] = torch.tensor([1, 0])
    return x, y


@pytest.mark.parametrize("mode", ["margin", "loss", "cross-entropy"])
def test_a_hand_made_set(mode):
    """The reference's test 15, by hand: 8 of 10 right; 6 of them within 0.35 of the plane."""
    x, y = ten_points()
    found = measure(Plane(), x, y, deltas=[0, 1, 4], draws=500, mode=mode, length=0.35, scalings=36)
    assert found.accuracy == Share(8, 10)
    assert found.adversarial == Share(6, 8)
    expected = torch.tensor([0.32, 0.21, 0.11, 0.11, 0.21, 0.32]).double()  # the next 0.01
    assert torch.allclose(found.size[found.attacked], expected)
    nothing, one, four = found.random
    assert nothing == Share(0, 6)
    u = UnitDraws.of((1, 1, 6), 500).at(range(500)).flatten(1)[:, 0]
    low, high = float(-u.min()), float(u.max())
    distance = torch.tensor([0.315, 0.205, 0.105, 0.105, 0.205, 0.315]).double()
    reach = torch.tensor([high] * 3 + [low] * 3).double()  # the draws' furthest to either side
    for share, delta in ((one, 1), (four, 4)):
        assert share == Share(int((delta * expected * reach > distance).sum()), 6)
    assert 0 < four.count


def test_the_sigmoid_of_a_plane_is_attacked_straight():
    """The reference's test 14: theorem 7, two classes by a steep sigmoid of the first value."""
    x, y = ten_points()
    for slope in (0.5, 10.0):
        for mode in ("margin", "loss"):
            line = gradient_line(Plane(slope), x, y, mode=mode, length=1.0, scalings=101)
            right = correct(Plane(slope), x, y)
            delta = (line.images - x).flatten(1)[right]
            direction = delta / delta.norm(dim=1, keepdim=True)
            expected = torch.zeros_like(direction)
            expected[:, 0] = 1.0 - 2.0 * y[right]
            assert torch.allclose(direction, expected, atol=1e-6)
            distance = (x[right, 0, 0, 0].double() - 0.5).abs()
            assert torch.allclose(line.size[right], (distance / 0.01).ceil() * 0.01, atol=0.0101)
            assert (line.size[right] >= distance - 1e-6).all()


def test_the_printed_loss_saturates_for_one_class_before_the_other():
    """Mean squared error on a sigmoid: the gradient of class 1 is lost at 17, of class 0 at -53."""
    x = torch.full((4, 1, 1, 2), 0.5)
    x[:, 0, 0, 0] = torch.tensor([0.1, 0.9, 0.0, 1.0])
    y = torch.tensor([0, 1, 0, 1])
    wide = Plane(60.0)  # logits of -24, 24, -30 and 30
    printed = measure(wide, x, y, draws=1, mode="loss")
    assert printed.zero_gradients == 2
    assert printed.attacked.tolist() == [True, False, True, False]
    for mode in ("margin", "cross-entropy"):
        found = measure(wide, x, y, draws=1, mode=mode)
        assert found.zero_gradients == 0
        assert found.attacked.all()


class Fixed(nn.Module):
    """Answers one class whatever it sees."""

    def __init__(self, label=1, tie=False):
        super().__init__()
        self.label, self.tie = label, tie

    def forward(self, x):
        logits = torch.zeros(len(x), 3, dtype=x.dtype)
        logits[:, self.label] += 0 if self.tie else 1
        return logits + 0 * x.flatten(1)[:, :1]


def test_a_model_right_on_nothing_has_no_susceptibility():
    x, y = torch.rand(6, 1, 3, 3, generator=seeded()), torch.zeros(6, dtype=torch.long)
    found = measure(Fixed(), x, y, draws=4)
    assert found.accuracy == Share(0, 6)
    for share in (found.adversarial, *found.random):
        assert math.isnan(share.value)
        assert str(share) == "n/a (of 0)"
        assert all(math.isnan(end) for end in share.interval)
    assert all(math.isnan(v) for pair in found.norms() for v in pair)
    assert found.zero_gradients == 0


@pytest.mark.parametrize(("label", "tie"), [(1, False), (0, True)])
def test_a_constant_model_has_no_attack(label, tie):
    """Whether it is sure or all logits are equal: of a tie the first class is the answer."""
    x = torch.rand(6, 1, 3, 3, generator=seeded())
    found = measure(Fixed(label, tie), x, torch.full((6,), label), draws=4)
    assert found.adversarial == Share(0, 6)
    assert found.adversarial.interval == wilson(0, 6)
    assert found.zero_gradients == 6
    assert all(math.isnan(share.value) for share in found.random)


def test_an_attack_at_the_end_of_the_line_counts():
    x = torch.full((2, 1, 1, 4), 0.5)
    x[:, 0, 0, 0] = torch.tensor([0.25, 0.2])
    y = torch.zeros(2, dtype=torch.long)
    found = measure(Plane(), x, y, draws=1, deltas=[1], length=0.25, scalings=2)
    assert found.size.tolist()[1] == math.inf
    # On the boundary the two logits are equal, and class 0 is the answer: a hair further it is not.
    found = measure(Plane(), x, y, draws=1, deltas=[1], length=0.2500001, scalings=2)
    assert found.size.tolist() == [pytest.approx(0.25, abs=1e-6), math.inf]


def test_one_draw_and_no_noise(digits_net, some):
    x, y = some
    found = measure(digits_net, x, y, draws=1, deltas=[0, 3], count=True)
    assert found.hits.max() <= 1
    assert not found.hit[0].any()
    assert found.unseen == 1.0
    assert measure(digits_net, x, y, draws=2000, deltas=[0]).unseen == 0.0015


def test_float64_stays_float64(digits_net, some):
    x, y = some
    model = nn.Sequential(Cast(), digits_net)
    seen = []
    model[0].register_forward_pre_hook(lambda _, given: seen.append(given[0].dtype))
    wide = measure(model, x.double(), y, draws=20, deltas=DELTAS, count=True)
    assert set(seen) == {torch.float64}
    narrow = measure(digits_net, x, y, draws=20, deltas=DELTAS, count=True)
    assert torch.equal(wide.hits, narrow.hits)


class Cast(nn.Module):
    def forward(self, x):
        return x.float()


def test_the_set_is_one_for_all_images_and_models(digits_net, some):
    """An image's hits do not hang on which others are looked at, nor on their order."""
    x, y = some
    whole = measure(digits_net, x, y, draws=30, deltas=DELTAS, count=True)
    order = torch.randperm(len(x), generator=seeded(1))
    turned = measure(digits_net, x[order], y[order], draws=30, deltas=DELTAS, count=True)
    assert torch.equal(turned.hits, whole.hits[:, order])
    alone = measure(digits_net, x[4:5], y[4:5], draws=30, deltas=DELTAS, count=True)
    assert torch.equal(alone.hits[:, 0], whole.hits[:, 4])


def test_every_pass_without_a_fast_copy_is_the_models_own(digits_net, some):
    x, y = some
    model, seen = torch.fx.symbolic_trace(digits_net), []
    model.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    found = measure(model, x, y, draws=5, deltas=[2], fast=False)
    uncounted = 3 * 2 + 1  # passes that try gradients and memory, before the count begins
    assert sum(seen) == found.forwards + uncounted


def test_images_that_broke_are_left_alone(digits_net, some):
    x, y = some
    share = measure(digits_net, x, y, draws=100, deltas=[8])
    counted = measure(digits_net, x, y, draws=100, deltas=[8], count=True)
    assert share.random[0].count > 10
    assert share.forwards < 0.6 * counted.forwards


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"deltas": []}, r"deltas: expected one or more distinct multiples >= 0, got \[\]"),
        ({"deltas": [1, 1.0]}, "deltas: .*distinct"),
        ({"deltas": [-1]}, "deltas: .*>= 0"),
        ({"deltas": [math.inf]}, "deltas: .*>= 0"),
        ({"draws": 0}, "draws: expected >= 1, got 0"),
        ({"region": "disc"}, "region: expected one of"),
        ({"mode": "paper"}, "mode: expected one of .*margin.*, got 'paper'"),
        ({"length": 0}, "length"),
        ({"scalings": 1}, "scalings"),
    ],
)
def test_what_cannot_be_asked_is_refused(settings, message, digits_net, some):
    with pytest.raises(ValueError, match=message) as refused:
        measure(digits_net, *some, **settings)
    assert "\n" not in str(refused.value)


def test_a_share_says_what_it_is_of():
    assert str(Share(3, 8)) == "37.50 % (3 of 8)"
    assert Share(3, 8).interval == wilson(3 / 8, 8)
