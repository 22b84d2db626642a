"""What an attack finds does not depend on the scale of the logits."""

from __future__ import annotations

import pytest
import torch
from public import images, net, seeded, top
from torch import nn
from torch.nn import functional

from metrics import APGD, FGSM, PGD, StepLL, gradient_line, minimal_fgsm, robust_accuracy
from metrics.answers import SPREAD, margin_loss, temperatures

ATTACKS = [
    FGSM(epsilon=0.03),
    PGD(epsilon=0.03, steps=4),
    PGD(epsilon=0.3, steps=4, norm="l2"),
    PGD(epsilon=0.03, steps=4, target="runner-up"),
    StepLL(epsilon=0.06),
    APGD(epsilon=0.03, steps=6),
    APGD(epsilon=0.03, steps=6, loss="dlr"),
]


class Scaled(nn.Module):
    """A net with its logits times a number, plus a number."""

    def __init__(self, model, scale=1.0, offset=0.0):
        super().__init__()
        self.net, self.scale, self.offset = model, scale, offset

    def forward(self, x):
        return self.net(x) * self.scale + self.offset


@pytest.fixture(scope="module")
def validation(digits):
    return digits.validation.images(), digits.validation.labels


def accuracy(model, validation, attack):
    return robust_accuracy(model, *validation, attack, generator=seeded()).accuracy


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_from_the_usual_spread_on_accuracy_is_one_number(attack, digits_net, validation):
    """Of powers of two, which round nothing, to the last image."""
    masks = [
        robust_accuracy(Scaled(digits_net, scale), *validation, attack, generator=seeded()).robust
        for scale in (64.0, 2.0**13, 2.0**100)
    ]
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[0], masks[2])
    assert 20 < masks[0].sum() < 180


@pytest.mark.parametrize("scale", [2.0, 40.0, 1e4])
@pytest.mark.parametrize(
    "attack", [PGD(epsilon=0.1, steps=10), APGD(epsilon=0.1, steps=20), FGSM(epsilon=0.1)], ids=repr
)
def test_a_confident_net_looks_no_more_robust(attack, scale, digits_net, validation):
    """Probabilities of 1, whose cross entropy has no gradient: the usual way to look robust."""
    honest = Scaled(digits_net, 12.0)  # as far apart as those of a net that is fully trained
    expected = accuracy(honest, validation, attack)
    found = robust_accuracy(Scaled(honest, scale), *validation, attack, generator=seeded())
    assert abs(found.accuracy - expected) <= 0.02
    assert found.zero_gradients == 0


@pytest.mark.parametrize("scale", [1e-30, 1e-4, 1e30])
@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_no_gradient_is_lost_at_any_scale(attack, scale):
    model = net()
    x = images(20)
    y = top(model, x)
    scaled = Scaled(model, scale)
    found = robust_accuracy(scaled, x, y, attack, generator=seeded())
    assert found.zero_gradients == found.nonfinite_gradients == 0
    adversarial = attack(scaled, x, y, generator=seeded())
    assert adversarial.isfinite().all()
    assert not torch.equal(adversarial, x)
    expected = robust_accuracy(model, x, y, attack, generator=seeded()).accuracy
    assert abs(found.accuracy - expected) <= 0.1


@pytest.mark.parametrize("scale", [1e-30, 40.0, 1e30])
def test_smallest_perturbations_at_any_scale(scale, digits_net, validation):
    x, y = (v[:40] for v in validation)
    for smallest in (
        lambda m: minimal_fgsm(m, x, y).size,
        lambda m: gradient_line(m, x, y, length=2.0, scalings=64, mode="margin").size,
    ):
        a, b = smallest(digits_net), smallest(Scaled(digits_net, scale))
        both = a.isfinite() & b.isfinite()
        assert (a.isfinite() != b.isfinite()).sum() <= 2
        assert (a[both] - b[both]).abs().median() <= 0.01


@pytest.mark.parametrize("offset", [1e3, 1e6, 1e8])
def test_an_offset_of_all_logits_is_none(offset):
    """In float64, in which it is not rounded away: a cast to float32 would round the lead."""
    model = net().double()
    x = images(20).double()
    y, attack = top(model, x), PGD(epsilon=0.05, steps=4)
    shifted = Scaled(model, offset=offset)
    a, b = (robust_accuracy(m, x, y, attack, generator=seeded()) for m in (model, shifted))
    assert torch.equal(a.clean, b.clean)
    assert torch.equal(a.robust, b.robust)
    sizes = [minimal_fgsm(m, x, y, tolerance=1e-4).size for m in (model, shifted)]
    assert torch.allclose(*sizes, atol=1e-4)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_the_margin_loss_is_the_cross_entropys(kind):
    """Its softplus; so it is log(exp(cross entropy) - 1), and its gradient has one direction."""
    logits = (4 * torch.randn(50, 10, generator=seeded())).to(kind).requires_grad_()
    labels = torch.randint(10, (50,), generator=seeded(1))
    margin = margin_loss(logits, labels)
    entropy = functional.cross_entropy(logits, labels, reduction="none")
    assert torch.allclose(functional.softplus(margin), entropy, rtol=1e-4)
    assert torch.allclose(margin.double(), entropy.double().expm1().log(), rtol=1e-3, atol=1e-4)
    a, b = (torch.autograd.grad(v.sum(), logits, retain_graph=True)[0] for v in (margin, entropy))
    assert torch.allclose(functional.normalize(a), functional.normalize(b), atol=1e-4)


def test_the_margin_loss_never_saturates():
    """A label that leads by 30 or 1,000: float32 rounds the cross entropy's gradient to 0."""
    for lead in (30.0, 1e3, 1e30):
        logits = torch.tensor([[lead, 0.0, -1.0]], requires_grad=True)
        gradient = torch.autograd.grad(margin_loss(logits, torch.tensor([0])).sum(), logits)[0]
        assert gradient[0, 0] == -1
        assert gradient[0, 1:].sum().item() == pytest.approx(1)


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        ([2.0, -2.0], 1.0),  # standard deviation 2
        ([SPREAD, -SPREAD], 1.0),
        ([3 * SPREAD, -3 * SPREAD], 3.0),
        ([3 * SPREAD + 100, -3 * SPREAD + 100], 3.0),
        ([0.0, 0.0, 16 * SPREAD, 16 * SPREAD], 8.0),
        ([16.0, -16.0, -torch.inf], 16 / SPREAD),
        ([16.0, -torch.inf, -torch.inf], 1.0),
        ([1e30, -1e30], 1e30 / SPREAD),
        ([1e-30, -1e-30], 1.0),
        ([0.0, 0.0, 0.0], 1.0),
        ([torch.nan, 16.0, -16.0], 16 / SPREAD),
    ],
)
def test_temperatures_by_hand(logits, expected):
    """The standard deviation over finite classes, over SPREAD; at least 1."""
    found = temperatures(torch.tensor([logits, [1.0, *logits[1:]]], requires_grad=True))
    assert found.shape == (2, 1)
    assert found[0].item() == pytest.approx(expected, rel=1e-6)
    assert not found.requires_grad


class Masked(nn.Module):
    """A net with classes that cannot be."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.net, self.scale = net(6), scale

    def forward(self, x):
        off = torch.zeros(6).index_fill(0, torch.tensor([4, 5]), -torch.inf)
        return self.scale * self.net(x) + off


class Cut(nn.Module):
    def __init__(self, scale=1.0):
        super().__init__()
        self.net, self.scale = net(6), scale

    def forward(self, x):
        return self.scale * self.net(x)[:, :4]


@pytest.mark.parametrize("scale", [1.0, 1e3])
@pytest.mark.parametrize(
    "attack", [a for a in ATTACKS if getattr(a, "towards", None) != "least-likely"], ids=repr
)
def test_classes_that_cannot_be_play_no_part(attack, scale):
    x = images(20)
    y = top(Cut(), x)
    a, b = (
        robust_accuracy(m, x, y, attack, generator=seeded()) for m in (Cut(scale), Masked(scale))
    )
    assert a.clean.all()
    assert torch.equal(a.clean, b.clean)
    assert b.nonfinite_gradients == 0
    assert torch.equal(a.robust, b.robust)
