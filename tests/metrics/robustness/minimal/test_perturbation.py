"""What is promised of every model: box, verification, sizes, passes, draws, refusals."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn

from metrics import gradient_line, minimal_fgsm, smallest_perturbation
from metrics.attacks import PGD
from metrics.robustness.accuracy import correct, robust_accuracy

NORMS = ("linf", "l2")


@pytest.fixture(scope="module")
def few(digits):
    return digits.validation.images()[:24], digits.validation.labels[:24]


def lengths(images, x, norm):
    delta = (images.double() - x.double()).flatten(1)
    return delta.abs().amax(1) if norm == "linf" else delta.square().sum(1).sqrt()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def check(found, model, x, y, norm):
    """Assert what holds of any result."""
    right, broken = correct(model, x, y), found.size.isfinite()
    assert torch.equal(found.size == 0, ~right)
    assert not correct(model, found.images[broken], y[broken]).any() if broken.any() else True
    assert torch.equal(found.images[~broken], x[~broken])
    assert torch.equal(found.images[~right], x[~right])
    assert found.images.min() >= 0
    assert found.images.max() <= 1
    assert found.images.dtype == x.dtype
    assert found.size.dtype == torch.float64
    there = broken & right
    expected = lengths(found.images, x, norm)[there]
    assert torch.allclose(found.size[there], expected, rtol=1e-14, atol=0)
    names = Counter(found.found_by)
    assert names["clean"] == int((~right).sum())
    assert names["none"] == int((~broken).sum())
    assert set(names) <= {"clean", "none", "line", "nearest", "fmn", "apgd"}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("fast", [True, False])
def test_it_is_verified_in_the_box_and_measured(norm, fast, digits_net, few):
    found = smallest_perturbation(digits_net, *few, norm=norm, budget=60, fast=fast)
    check(found, digits_net, *few, norm)
    assert found.size.isfinite().all()


@pytest.mark.parametrize("norm", NORMS)
def test_it_is_never_larger_than_the_gradient_line(norm, digits_net, few):
    found = smallest_perturbation(digits_net, *few, norm=norm, budget=200, generator=seeded())
    if norm == "linf":
        line = minimal_fgsm(digits_net, *few).size
    else:
        line = gradient_line(digits_net, *few, clip=True)
        line = lengths(line.images, few[0], "l2").masked_fill(line.size.isinf(), torch.inf)
    assert (found.size <= line * (1 + 1e-6)).all()
    some = found.size > 0
    assert found.size[some].median() < 0.9 * line[some].median()


@pytest.mark.parametrize("norm", NORMS)
def test_no_attack_of_a_smaller_size_breaks_many(norm, digits_net, few):
    """PGD-40 with restarts, an attack of another kind, a tenth below the sizes found."""
    found = smallest_perturbation(digits_net, *few, norm=norm, budget=200, generator=seeded())
    x, y = few
    broken = 0
    for i in range(12):
        epsilon = float(0.9 * found.size[i])
        if epsilon > 0:
            attack = PGD(epsilon=epsilon, norm=norm, steps=40, restarts=2)
            result = robust_accuracy(digits_net, x[[i]], y[[i]], attack, generator=seeded())
            broken += result.accuracy == 0
    assert broken <= 1


class Counting(nn.Module):
    """A model that notes every image it is asked about, and every gradient that it gives."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.passes = [0, 0]
        self.sums = []

    def forward(self, x):
        self.sums.append(float(x.detach().double().sum()))
        self.passes[0] += len(x)
        out = self.model(x)
        if out.requires_grad:
            out.register_hook(self.back)
        return out

    def back(self, gradient):
        self.passes[1] += len(gradient)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("budget", [20, 37, 120, 300])
def test_the_budget_holds_for_every_image(norm, budget, digits_net, few):
    for i in range(4):
        x, y = (v[[i]] for v in few)
        model = Counting(digits_net)
        found = smallest_perturbation(
            model, x, y, norm=norm, budget=budget, fast=False, batch_size=1
        )
        # Three looks and a gradient before the search: that gradients leave the logits alone.
        assert model.passes[0] - 3 <= budget
        assert model.passes[1] <= budget
        assert found.forwards <= budget
        assert found.backwards <= budget
        if found.size > 0:
            assert found.forwards > 0.7 * budget  # and it is spent


@pytest.mark.parametrize("norm", NORMS)
def test_an_image_has_its_answer_in_any_batch(norm, digits_net, few):
    model = digits_net.double()
    try:
        x, y = few[0].double(), few[1]
        results = [
            smallest_perturbation(
                model, x, y, norm=norm, budget=150, batch_size=size, generator=seeded(3)
            )
            for size in (5, 24)
        ]
    finally:
        digits_net.float()
    # In float64 the batch rounds by 1e-16, which the search may amplify; in float32 by more.
    assert torch.allclose(results[0].size, results[1].size, rtol=1e-6)
    assert results[0].found_by == results[1].found_by


def test_draws_come_from_the_generator(digits_net, few):
    x, y = (v[:8] for v in few)

    def asked(seed):
        model = Counting(digits_net)
        smallest_perturbation(model, x, y, budget=200, generator=seeded(seed))
        return model.sums

    assert asked(1) == asked(1)
    assert asked(1) != asked(2)


def test_more_budget_finds_no_less(digits_net, few):
    sizes = [smallest_perturbation(digits_net, *few, budget=b).size for b in (20, 60, 300)]
    means = [float(s.mean()) for s in sizes]
    assert means[0] > means[1] > means[2]


class Table(nn.Module):
    """Logits as a function of the images' pixels."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x.flatten(1))


def pair(v):
    return torch.stack([v, -v], dim=1)


ODD = {
    "constant": lambda v: torch.tensor([[1.0, 0.0, 0.5]]).expand(len(v), 3) + 0 * v[:, :3],
    "no graph": lambda v: torch.tensor([[1.0, 0.0, 0.5]]).repeat(len(v), 1),
    "steps": lambda v: pair((v.mean(1) * 8).floor() - 4.5),
    "sign": lambda v: pair((v.mean(1) - 0.5).sign()),
    "NaN beyond": lambda v: pair(torch.where(v.mean(1) > 0.6, torch.nan, 1.0) + v.mean(1)),
    "NaN below": lambda v: pair(torch.where(v.mean(1) < 0.3, torch.nan, 1.0) + v.mean(1)),
    "NaN gradient": lambda v: pair((v[:, 0] - v[:, 0]).sqrt() + v.mean(1) + 0.1),
    "two classes": lambda v: pair(v.mean(1) - 0.55),
    "minus infinity": lambda v: torch.stack(
        [v[:, 0], 0.9 - v[:, 0], torch.full_like(v[:, 0], -torch.inf)], dim=1
    ),
    "large": lambda v: 1e30 * pair(v.mean(1) - 0.55),
    "small": lambda v: 1e-30 * pair(v.mean(1) - 0.55),
}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ODD)
def test_odd_models(norm, name):
    x = torch.rand(5, 1, 4, 4, generator=seeded())
    x[0], x[1], x[2] = 0.0, 1.0, (x[2] > 0.5).float()  # on the border of the box
    x[3] = 0.3 + 0.4 * x[3]
    model = Table(ODD[name])
    y = model(x).argmax(1)
    y[4] = 1 - y[4]
    found = smallest_perturbation(model, x, y, norm=norm, budget=60)
    check(found, model, x, y, norm)
    if name in ("constant", "no graph"):
        assert found.size[:4].isinf().all()
        assert found.zero_gradients == 4
    if name in ("two classes", "large", "small"):
        exact = (x.double().flatten(1).mean(1) - 0.55).abs() * (1 if norm == "linf" else 4)
        free = torch.tensor([0, 1, 3])  # the box does not cut their step off
        assert torch.allclose(found.size[free], exact[free], rtol=0.005)
    if name == "NaN below":  # no answer is a wrong one
        assert found.size.isfinite().all()
    if name == "NaN gradient":
        assert found.nonfinite_gradients == 4
    if name == "minus infinity":
        assert found.size.isfinite().all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
def test_other_types(norm, kind, digits_net, few):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(10, 64, generator=seeded()) / 4)
    model, x = model.to(kind), few[0].to(kind)
    y = model(x).argmax(1)
    found = smallest_perturbation(model, x, y, norm=norm, budget=60)
    check(found, model, x, y, norm)
    assert found.size.isfinite().all()


def test_one_image_and_all_wrong_already(digits_net, few):
    x, y = few
    check(smallest_perturbation(digits_net, x[:1], y[:1]), digits_net, x[:1], y[:1], "linf")
    wrong = (digits_net(x).argmax(1) + 1) % 10
    found = smallest_perturbation(digits_net, x, wrong)
    check(found, digits_net, x, wrong, "linf")
    assert (found.forwards, found.backwards) == (len(x), 0)


def test_the_model_is_left_as_found(digits_net, few):
    digits_net.train()
    try:
        before = {k: v.clone() for k, v in digits_net.state_dict().items()}
        gradients = [p.grad for p in digits_net.parameters()]
        smallest_perturbation(digits_net, *few, budget=40)
        assert digits_net.training
        after = digits_net.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert all(p.grad is g for p, g in zip(digits_net.parameters(), gradients, strict=True))
    finally:
        digits_net.eval()


def test_a_batch_that_does_not_fit_is_halved(digits_net, few):
    class Narrow(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = digits_net

        def forward(self, x):
            if len(x) > 12:
                raise torch.OutOfMemoryError("out of memory")
            return self.model(x)

    whole = smallest_perturbation(
        Narrow(), *few, budget=120, batch_size=40, fast=False, generator=seeded()
    )
    parts = smallest_perturbation(
        digits_net, *few, budget=120, batch_size=10, fast=False, generator=seeded()
    )
    assert torch.allclose(whole.size, parts.size, rtol=1e-3)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"norm": "l1"}, r"norm: expected one of \['linf', 'l2'\], got 'l1'"),
        ({"budget": 19}, "expected budget >= 20 passes an image, got 19"),
        ({"budget": 50.0}, "budget: expected an integer, got 50.0"),
        ({"batch_size": 0}, "batch_size"),
        ({"generator": 3}, "generator: expected a torch.Generator"),
    ],
)
def test_bad_settings_are_refused(settings, match, digits_net, few):
    with pytest.raises(ValueError, match=match):
        smallest_perturbation(digits_net, *few, **settings)


def test_no_images_are_refused(digits_net, few):
    with pytest.raises(ValueError, match="at least one image"):
        smallest_perturbation(digits_net, few[0][:0], few[1][:0])
