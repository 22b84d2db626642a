"""The smallest perturbation against closed forms and brute force."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from metrics.answers import input_gradient
from metrics.attacks import FGSM
from metrics.left_as_found import evaluating
from metrics.robustness.accuracy import correct, robust_accuracy
from metrics.robustness.smallest import gradient_line, minimal_fgsm

TOLERANCE = 0.1 / 255


@pytest.fixture(scope="module")
def validation(digits):
    return digits.validation.images(), digits.validation.labels


def two_class(n=100):
    """Return a linear model, images far from the box, their labels, and w, the margin's slope."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    x = 0.4 + 0.2 * torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model(x)
    y = logits.argmax(1)
    margin = (logits[:, 0] - logits[:, 1]).abs().double()
    w = (model[1].weight[0] - model[1].weight[1]).detach().double()
    return model, x, y, margin, w


def test_minimal_fgsm_of_a_linear_model_is_its_distance():
    model, x, y, margin, w = two_class()
    found = minimal_fgsm(model, x, y)
    exact = margin / w.abs().sum()
    assert (found.size >= exact - 1e-6).all()
    assert (found.size <= exact + TOLERANCE + 1e-6).all()


@pytest.mark.parametrize("mode", ["cross-entropy", "margin", "loss"])
def test_the_gradient_line_of_a_linear_model_is_the_next_scaling(mode):
    model, x, y, margin, w = two_class()
    found = gradient_line(model, x, y, mode=mode, length=0.5, scalings=101)
    exact = margin / w.norm()
    assert found.size.isfinite().all()
    assert (found.size >= exact - 1e-6).all()
    assert (found.size <= exact + 0.005 + 1e-6).all()
    multiple = found.size / 0.005
    assert torch.allclose(multiple, multiple.round(), atol=1e-6)


def test_minimal_fgsm_is_verified_and_tight(digits_net, validation):
    x, y = validation
    found = minimal_fgsm(digits_net, x, y)
    right, broken = correct(digits_net, x, y), found.size.isfinite()
    assert torch.equal(found.size == 0, ~right)
    assert not correct(digits_net, found.images[broken], y[broken]).any()
    assert torch.equal(found.images[~broken], x[~broken])
    moved = (found.images - x).abs().flatten(1).amax(1).double()
    assert (moved <= found.size + 1e-6)[broken].all()
    # An epsilon smaller by the tolerance does not break it, by an FGSM of its own.
    todo = (right & broken).nonzero().squeeze(1)
    for i in todo[:30].tolist():
        epsilon = max(float(found.size[i]) - TOLERANCE, 0.0)
        # The search closes a bracket whose lower end is right; it may lie a little lower still.
        below = [epsilon * s for s in (1.0, 0.999)]
        held = [
            bool(correct(digits_net, FGSM(epsilon=e)(digits_net, x[[i]], y[[i]]), y[[i]]))
            for e in below
        ]
        assert any(held)


def test_the_ladder_finds_what_breaks_only_at_small_epsilons():
    """A net that is wrong in a shell around the image and right again further out."""

    class Shell(nn.Module):
        def forward(self, x):
            far = (x - 0.5).flatten(1).mean(1, keepdim=True).abs()
            wrong = ((far > 0.02) & (far < 0.06)).float()
            slope = x.flatten(1).sum(1, keepdim=True) * 1e-3
            return torch.cat([slope - 10 * wrong, 2 * slope - 10 * (1 - wrong)], 1)

    x = torch.full((3, 1, 8, 8), 0.5)
    found = minimal_fgsm(Shell(), x, torch.zeros(3, dtype=torch.long))
    assert torch.allclose(found.size, torch.full((3,), 0.02, dtype=torch.float64), atol=1e-3)
    at_the_limit = FGSM(epsilon=100 / 255)(Shell(), x, torch.zeros(3, dtype=torch.long))
    assert correct(Shell(), at_the_limit, torch.zeros(3, dtype=torch.long)).all()


def test_it_costs_one_gradient_and_few_looks(digits_net, validation):
    x, y = validation
    found = minimal_fgsm(digits_net, x, y)
    right = int(correct(digits_net, x, y).sum())
    assert found.backwards == right
    assert found.forwards <= len(y) + 14 * right  # bisection alone: 1 + 10 looks and the ladder's 5


@pytest.mark.parametrize("clip", [False, True])
def test_the_gradient_line_is_brute_force(clip, digits_net, validation):
    """All 256 scalings of the unit gradient, written out."""
    x, y = (v[:40] for v in validation)
    found = gradient_line(digits_net, x, y, clip=clip)
    with evaluating(digits_net):
        gradient = input_gradient(digits_net, x, y)
        unit = gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        for i in range(len(y)):
            scalings = torch.linspace(0, 5, 256)
            line = x[i] + scalings.view(-1, 1, 1, 1) * unit[i]
            with torch.no_grad():
                wrong = digits_net(line.clamp(0, 1) if clip else line).argmax(1) != y[i]
            expected = scalings[wrong][0].item() if wrong.any() else float("inf")
            assert found.size[i].item() == pytest.approx(expected, abs=1e-6)


def test_no_mode_saturates():
    """Logits a hundred thousand times larger: cross entropy's gradient is zero in float32."""
    model, x, y, margin, w = two_class(20)
    with torch.no_grad():
        model[1].weight *= 1e5
        model[1].bias *= 1e5
    leaf = x.clone().requires_grad_()
    loss = nn.functional.cross_entropy(model(leaf), y, reduction="sum")
    saturated = torch.autograd.grad(loss, leaf)[0].flatten(1).eq(0).all(1)
    assert saturated.sum() > 10
    for mode in ("cross-entropy", "margin"):
        found = gradient_line(model, x, y, mode=mode, length=0.5)
        assert found.zero_gradients == 0
        assert found.size.isfinite().all()


def test_what_cannot_be_broken_is_infinite(validation):
    class Constant(nn.Module):
        def forward(self, x):
            return torch.tensor([[1.0, 0.0]]).expand(len(x), 2) + 0 * x.flatten(1)[:, :2]

    x, y = validation[0][:4], torch.tensor([0, 0, 1, 1])
    for found in (minimal_fgsm(Constant(), x, y), gradient_line(Constant(), x, y)):
        assert found.size.tolist() == [float("inf")] * 2 + [0.0] * 2
        assert found.zero_gradients == 2


def test_smallest_epsilons_and_fgsm_accuracy_agree(digits_net, validation):
    x, y = validation
    size = minimal_fgsm(digits_net, x, y).size
    for epsilon in (0.03, 0.1):
        fgsm = robust_accuracy(digits_net, x, y, FGSM(epsilon=epsilon))
        assert abs(fgsm.accuracy - (size > epsilon).double().mean().item()) <= 0.02


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda m, x, y: minimal_fgsm(m, x, y, tolerance=0), "tolerance"),
        (lambda m, x, y: minimal_fgsm(m, x, y, limit=2), "limit"),
        (lambda m, x, y: gradient_line(m, x, y, mode="best"), "mode.*cross-entropy"),
        (lambda m, x, y: gradient_line(m, x, y, length=0), "length"),
        (lambda m, x, y: gradient_line(m, x, y, scalings=1), "scalings"),
        (lambda m, x, y: minimal_fgsm(m, x[:0], y[:0]), "at least one image"),
    ],
)
def test_bad_settings_are_refused(call, match, digits_net, validation):
    with pytest.raises(ValueError, match=match):
        call(digits_net, *validation)
