"""Radii were certified themselves, and are those that formulas and finer searches give."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from torch import nn

import metrics.bounds.linear.bisection as bisection
from metrics.bounds.linear import certified, l2_from_linf, linf_from_l2, radius
from metrics.bounds.program import read


def net_of(seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 2), nn.ReLU(),
        nn.Flatten(), nn.Linear(24, 3),
    ).eval()  # fmt: skip
    images = torch.rand(6, 1, 6, 6)
    return read(net, images), images, net(images).argmax(1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_of_a_linear_net_it_is_the_distance_to_the_nearest_boundary(norm):
    torch.manual_seed(0)
    dense = nn.Linear(9, 3)
    dense.bias.data.zero_()
    images = 0.5 + 0.02 * torch.rand(4, 1, 3, 3)
    program = read(nn.Sequential(nn.Flatten(), dense), images)
    labels = dense(images.flatten(1)).argmax(1)
    weight, bias = dense.weight.detach().double(), dense.bias.detach().double()
    apart = weight[labels, None] - weight
    ahead = (apart * images.double().flatten(1)[:, None]).sum(2) + bias[labels, None] - bias
    length = apart.abs().sum(2) if norm == "linf" else apart.norm(dim=2)
    want = (ahead / length).nan_to_num(torch.inf).amin(1)
    assert (want < 0.47).all()  # the box is not reached
    got = radius(program, images, labels, norm, evaluations=22)
    assert (got <= want * (1 + 1e-9)).all()
    torch.testing.assert_close(got, want, rtol=3e-6, atol=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_each_radius_was_certified_and_a_finer_scan_finds_little_more(norm):
    program, images, labels = net_of()
    found = radius(program, images, labels, norm)
    assert (found > 0).all()
    assert certified(program, images, labels, norm, found).all()
    scan = torch.linspace(0, 3 * float(found.max()), 80, dtype=torch.float64)
    holds = torch.stack([certified(program, images, labels, norm, float(e)) for e in scan])
    largest = (scan[:, None] * holds).amax(0)
    assert (found > 0.95 * largest).all()


def test_what_is_wrong_as_it_is_has_radius_zero():
    program, images, labels = net_of()
    wrong = labels.clone()
    wrong[::2] = (labels[::2] + 1) % 3
    found = radius(program, images, wrong, "linf")
    assert (found[::2] == 0).all()
    assert found[1::2].equal(radius(program, images[1::2], labels[1::2], "linf"))
    assert (radius(program, images, (labels + 1) % 3, "l2") == 0).all()


def test_no_radius_exceeds_the_limit_which_a_certain_net_reaches_nearly():
    program, images, labels = net_of()
    assert (radius(program, images, labels, "linf", 1e-3) <= 1e-3).all()
    dense = nn.Linear(4, 2)
    nn.init.zeros_(dense.weight)
    white = torch.ones(2, 1, 2, 2)
    certain = read(nn.Sequential(nn.Flatten(), dense), white)
    labels = dense(white.flatten(1)).argmax(1)
    for norm, far in (("linf", 1.0), ("l2", 2.0)):
        found = radius(certain, white, labels, norm)
        assert ((found <= far) & (found > 0.99 * far)).all()


def test_as_many_evaluations_as_said_are_made(monkeypatch):
    program, images, labels = net_of()
    seen, real = [], bisection.margins
    monkeypatch.setattr(bisection, "margins", lambda *a, **k: (seen.append(a[4]), real(*a, **k))[1])
    radius(program, images, labels, "l2", evaluations=7)
    assert len(seen) == 7
    radius(program, images, (labels + 1) % 3, "l2", evaluations=7)
    assert len(seen) == 8  # no image is right: nothing to look for


def test_conversions_between_norms_hold_where_they_are_tight():
    radii = torch.tensor([0.0, 0.1, 3.0], dtype=torch.float64)
    assert l2_from_linf(radii).equal(radii)
    for size in (1, 3, 784):
        got = linf_from_l2(radii, size)
        # The corner of the L infinity ball is its farthest point, got sqrt(size) away.
        for r, corner in zip(radii.tolist(), got.tolist(), strict=True):
            assert Fraction(corner) ** 2 * size <= Fraction(r) ** 2
        torch.testing.assert_close(got * math.sqrt(size), radii, rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match="size: expected at least 1, got 0"):
        linf_from_l2(radii, 0)


def test_conversions_agree_with_radii_of_the_other_norm():
    """A linear net whose nearest boundary lies along an axis, and one where it is diagonal."""
    for weight, ratio in (([1.0, 0.0, 0.0, 0.0], 1.0), ([1.0, 1.0, 1.0, 1.0], 2.0)):
        dense = nn.Linear(4, 2, bias=False)
        with torch.no_grad():
            dense.weight.copy_(torch.tensor([weight, [0.0] * 4]))
        image = torch.full((1, 1, 2, 2), 0.1)
        program, label = read(nn.Sequential(nn.Flatten(), dense), image), torch.tensor([0])
        linf = radius(program, image, label, "linf", 0.2, evaluations=40)
        l2 = radius(program, image, label, "l2", 0.2, evaluations=40)
        assert float(l2 / linf) == pytest.approx(ratio, rel=1e-5)
        assert (l2_from_linf(linf) <= l2 * (1 + 1e-6)).all()
        assert (linf_from_l2(l2, 4) <= linf * (1 + 1e-6)).all()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"evaluations": 2}, "evaluations: expected at least 3, got 2"),
        ({"limit": 0.0}, "limit: expected a length above 0"),
        ({"limit": math.nan}, "limit: expected a length above 0"),
        ({"limit": math.inf}, "limit: expected a length above 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, text):
    program, images, labels = net_of()
    with pytest.raises(ValueError, match=text):
        radius(program, images, labels, "linf", **settings)
