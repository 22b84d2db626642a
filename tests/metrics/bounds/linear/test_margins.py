"""Bounds hold for every image that was looked at, and are exact where they can be."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import metrics.bounds.linear.enclosure as enclosure
from metrics import PGD
from metrics.bounds.linear import certified, margins
from metrics.bounds.linear.lines import pool_lines
from metrics.bounds.program import read

SIDE = 8


class Residual(nn.Module):
    """A residual sum, a concatenation, and the images once more."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4))
        self.second = nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2)
        self.third = nn.Conv2d(10, 4, 3, stride=2, padding=1)
        self.head = nn.Linear(4 * 3 * 3, 3)

    def forward(self, x):
        h = torch.relu(self.first(x))
        k = nn.functional.leaky_relu(self.second(h) - 0.5 * h, 0.2)
        joined = torch.cat([h, x, k], 1)
        pooled = nn.functional.max_pool2d(torch.relu(self.third(joined)), 3, 2, 1)
        return self.head(nn.functional.pad(pooled, (0, 1, 1, 0), value=0.3).flatten(1))


def conv(*layers, features):
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, 3))


NETS = {
    "dense": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(128, 12), nn.ReLU(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 3)
    ),
    "strided": lambda: conv(
        nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 2), nn.ReLU(),
        nn.Conv2d(6, 4, 2, bias=False), nn.ReLU(), features=16,
    ),
    "grouped": lambda: conv(
        nn.Conv2d(2, 4, 3, groups=2), nn.LeakyReLU(0.1), nn.Conv2d(4, 4, (2, 3), dilation=(2, 1)),
        nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(2, ceil_mode=True), features=16,
    ),
    "pooled": lambda: conv(
        nn.Conv2d(2, 4, 3, padding=1), nn.MaxPool2d(3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3),
        nn.ReLU(), nn.MaxPool2d(2, 1), nn.Dropout(0.3), features=4,
    ),
    "adaptive": lambda: conv(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AdaptiveMaxPool2d(4), nn.Conv2d(4, 5, 2, padding=1),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), features=5,
    ),
    "steep": lambda: conv(nn.Conv2d(2, 3, 3), nn.LeakyReLU(1.7), features=108),
    "two convolutions first": lambda: conv(
        nn.Conv2d(2, 3, 3), nn.Conv2d(3, 3, 3), nn.ReLU(), features=48
    ),
    "residual": Residual,
}  # fmt: skip
LENGTHS = {"linf": (0.0, 0.01, 0.06, 0.3), "l2": (0.0, 0.05, 0.4, 2.0)}


def case(name: str, seed: int = 0, count: int = 3):
    """Return a program with its own norms' statistics, images, some at the end, and its labels."""
    torch.manual_seed(seed)
    net = NETS[name]().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.normal_()
    images = (1.4 * torch.rand(count, 2, SIDE, SIDE) - 0.2).clamp(0, 1)
    program = read(net, images)
    return net, program, images, net(images).argmax(1)


def true_margins(program, images, labels):
    """Return what the program itself says in float64 ``(N, classes)``; inf for the label."""
    last = len(program.steps) - 1
    logits = program.evaluate(images.double(), [last])[last]
    ahead = logits.gather(1, labels[:, None]) - logits
    return ahead.scatter(1, labels[:, None], torch.inf)


def within(images, points, norm, epsilon):
    """Return points pulled back into the ball, in float64."""
    away = points.double() - images.double()
    flat = away.flatten(1)
    length = flat.abs().amax(1) if norm == "linf" else flat.norm(dim=1)
    share = (epsilon / length.clamp_min(1e-300)).clamp_max(1).view(-1, 1, 1, 1) * (1 - 1e-12)
    return (images.double() + share * away).clamp(0, 1)


def attacked(net, program, images, labels, norm, epsilon, seed=0):
    """Return the least margins that points of the ball have: random, corners, and attacked."""
    random = torch.Generator().manual_seed(seed)
    least = true_margins(program, images, labels)
    for i in range(60):
        away = torch.randn(images.shape, generator=random, dtype=torch.float64)
        away = away.sign() if i % 2 else away
        points = within(images, images + 1e3 * away, norm, epsilon)
        least = torch.minimum(least, true_margins(program, points, labels))
    if epsilon:
        for target in range(least.shape[1]):
            far = PGD(epsilon=epsilon, norm=norm, steps=10)
            found = far(net, images, labels, generator=torch.Generator().manual_seed(target))
            points = within(images, found, norm, epsilon)
            least = torch.minimum(least, true_margins(program, points, labels))
    return least


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", NETS)
def test_no_image_of_the_ball_has_a_smaller_margin(name, norm):
    net, program, images, labels = case(name)
    for epsilon in LENGTHS[norm]:
        bounds = margins(program, images, labels, norm, epsilon)
        assert bounds.dtype == torch.float64
        assert (bounds.isinf() == (torch.arange(3) == labels[:, None])).all()
        found = attacked(net, program, images, labels, norm, epsilon)
        assert (bounds <= found).all()
        if epsilon == 0:
            finite = ~bounds.isinf()
            torch.testing.assert_close(bounds[finite], found[finite], rtol=0, atol=1e-7)


@settings(max_examples=15, deadline=None)
@given(
    name=st.sampled_from(sorted(NETS)),
    seed=st.integers(0, 10_000),
    norm=st.sampled_from(["linf", "l2"]),
    epsilon=st.floats(0.001, 0.5),
)
def test_random_nets_keep_to_their_bounds(name, seed, norm, epsilon):
    net, program, images, labels = case(name, seed, count=2)
    bounds = margins(program, images, labels, norm, epsilon)
    assert (bounds <= attacked(net, program, images, labels, norm, epsilon, seed)).all()
    intervals = margins(program, images, labels, norm, epsilon, backwards=False)
    assert (intervals <= bounds + 1e-9).all()


def shiftless(pool, z):
    lines = pool_lines(pool, z)
    return replace(lines, upper_shift=torch.zeros_like(lines.upper_shift))


def test_attacks_notice_a_pool_line_that_is_wrong(monkeypatch):
    monkeypatch.setattr(enclosure, "pool_lines", shiftless)
    net, program, images, labels = case("pooled", count=8)
    seen = [
        margins(program, images, labels, "linf", epsilon)
        > attacked(net, program, images, labels, "linf", epsilon)
        for epsilon in (0.06, 0.15, 0.3)
    ]
    assert torch.stack(seen).any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_linear_net_has_its_exact_margins(norm):
    torch.manual_seed(0)
    dense = nn.Linear(18, 4)
    images = 0.3 + 0.4 * torch.rand(5, 2, 3, 3)
    program = read(nn.Sequential(nn.Flatten(), dense), images)
    labels = torch.tensor([0, 1, 2, 3, 0])
    weight, bias = dense.weight.detach().double(), dense.bias.detach().double()
    logits = images.double().flatten(1) @ weight.t() + bias
    apart = weight[labels, None] - weight
    length = apart.abs().sum(2) if norm == "linf" else apart.norm(dim=2)
    epsilon = torch.tensor([0.0, 0.01, 0.1, 0.2, 0.29], dtype=torch.float64)
    want = logits.gather(1, labels[:, None]) - logits - epsilon[:, None] * length
    want = want.scatter(1, labels[:, None], torch.inf)
    torch.testing.assert_close(
        margins(program, images, labels, norm, epsilon), want, rtol=0, atol=1e-9
    )


def test_pixels_stay_in_the_box():
    """A white image can only darken: in both norms the pixels that would brighten stay."""
    dense = nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        dense.weight.copy_(torch.tensor([[3.0, -4.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]))
    white = torch.ones(1, 1, 2, 2)
    program, label = read(nn.Sequential(nn.Flatten(), dense), white), torch.tensor([0])
    for norm in ("linf", "l2"):
        bound = margins(program, white, label, norm, 0.5)[0, 1]
        assert float(bound) == pytest.approx(-1 - 3 * 0.5, abs=1e-9)  # only the first one counts


def test_the_least_value_in_an_l2_ball_cut_by_the_box_is_that_of_a_solver():
    scipy = pytest.importorskip("scipy.optimize")
    torch.manual_seed(1)
    dense = nn.Linear(6, 2, bias=False)
    image = torch.tensor([0.0, 0.05, 0.5, 0.9, 1.0, 0.97]).view(1, 1, 1, 6)
    program, label = read(nn.Sequential(nn.Flatten(), dense), image), torch.tensor([0])
    a = (dense.weight[0] - dense.weight[1]).detach().double().numpy()
    x = image.flatten().double().numpy()
    for epsilon in (0.05, 0.3, 0.8, 3.0):
        ball = {"type": "ineq", "fun": lambda d, e=epsilon: e**2 - d @ d}
        found = scipy.minimize(
            lambda d: a @ (x + d), 0 * x, bounds=list(zip(-x, 1 - x, strict=True)),
            constraints=[ball], method="SLSQP", options={"ftol": 1e-12, "maxiter": 500},
        )  # fmt: skip
        bound = float(margins(program, image, label, "l2", epsilon)[0, 1])
        assert bound <= found.fun + 1e-7
        assert bound == pytest.approx(found.fun, abs=2e-3)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ["residual", "pooled", "adaptive"])
def test_an_image_has_the_same_bounds_alone(name, norm):
    _, program, images, labels = case(name, count=4)
    epsilon = torch.tensor([0.0, 0.02, 0.1, 0.3], dtype=torch.float64)
    together = margins(program, images, labels, norm, epsilon)
    alone = [
        margins(program, images[i : i + 1], labels[i : i + 1], norm, float(epsilon[i]))
        for i in range(4)
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-11, atol=1e-11)


def test_rows_in_small_chunks_and_images_a_few_at_a_time_give_the_same(monkeypatch):
    _, program, images, labels = case("residual", count=5)
    want = margins(program, images, labels, "l2", 0.3)
    monkeypatch.setattr("metrics.bounds.linear.enclosure.CHUNK", 500)
    monkeypatch.setattr("metrics.bounds.linear.enclosure.FIRST", 3)
    monkeypatch.setattr("metrics.bounds.linear.worst_margins.ROOM", 2000)
    got = margins(program, images, labels, "l2", 0.3)
    torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_larger_ball_has_smaller_interval_bounds(norm):
    _, program, images, labels = case("residual")
    lengths = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
    found = [margins(program, images, labels, norm, e, backwards=False) for e in lengths]
    for larger, smaller in zip(found, found[1:], strict=False):
        assert (smaller <= larger).all()


def test_softmax_at_the_end_changes_no_bound():
    torch.manual_seed(0)
    net = conv(nn.Conv2d(2, 4, 3), nn.ReLU(), features=144)
    images = torch.rand(2, 2, SIDE, SIDE)
    labels = net(images).argmax(1)
    want = margins(read(net, images), images, labels, "linf", 0.01)
    soft = nn.Sequential(net, nn.Softmax(1))
    assert margins(read(soft, images), images, labels, "linf", 0.01).equal(want)


def test_what_overflows_is_certified_nowhere():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    images = torch.rand(3, 1, 2, 2)
    program, labels = read(net, images), net(images).argmax(1)
    dense = program.steps[-1].operation
    dense.weight.mul_(1e300)
    program.steps[2].operation.weight.mul_(1e300)
    bounds = margins(program, images, labels, "linf", 0.5)
    assert not bounds.isnan().any()
    assert not certified(program, images, labels, "linf", 0.5).any()


def test_certified_is_where_every_margin_is_above_zero():
    _, program, images, labels = case("dense", count=8)
    wrong = (labels + 1) % 3
    assert certified(program, images, labels, "linf", 0.0).all()
    assert not certified(program, images, wrong, "linf", 0.0).any()
    bounds = margins(program, images, labels, "l2", 0.2)
    assert certified(program, images, labels, "l2", 0.2).equal((bounds > 0).all(1))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"norm": "l1"}, "norm: expected one of"),
        ({"epsilon": -0.1}, "epsilon: expected lengths >= 0"),
        ({"epsilon": math.nan}, "epsilon: expected lengths >= 0"),
        ({"epsilon": torch.zeros(7)}, "epsilon: expected one or 3"),
        ({"labels": torch.tensor([0, 1, 3])}, "labels: expected classes 0 ... 2"),
        ({"images": torch.rand(3, 2, 9, 9)}, "images: expected"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change, text):
    _, program, images, labels = case("dense")
    arguments = {"images": images, "labels": labels, "norm": "linf", "epsilon": 0.1} | change
    with pytest.raises(ValueError, match=text):
        margins(program, **arguments)
