"""The smallest step in the box, and what the search makes of linear models, against scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import LinearConstraint, linprog, minimize
from torch import nn

from metrics import smallest_perturbation
from metrics.attacks.linear import smallest_step

NORMS = ("linf", "l2")


def least(x, g, gain, norm):
    """Return the length of the smallest step in the box with g . step >= gain, by scipy."""
    n = len(x)
    if norm == "linf":  # minimise t over (step, t): |step| <= t, in the box
        rows = np.block([[np.eye(n), -np.ones((n, 1))], [-np.eye(n), -np.ones((n, 1))]])
        found = linprog(
            np.r_[np.zeros(n), 1],
            A_ub=np.vstack([rows, np.r_[-g, 0]]),
            b_ub=np.r_[np.zeros(2 * n), -gain],
            bounds=[*zip(-x, 1 - x, strict=True), (0, None)],
        )
        assert found.success
        return found.fun
    scale = np.abs(g).max()
    found = minimize(
        lambda d: d @ d,
        np.zeros(n),
        jac=lambda d: 2 * d,
        bounds=list(zip(-x, 1 - x, strict=True)),
        constraints=LinearConstraint((g / scale)[None], gain / scale, np.inf),
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert found.success, found.message
    return float(np.sqrt(found.fun))


def problem(share, seed=0, n=12, pixels=9):
    """Return images, slopes and gains, each ``share`` of the most that the box holds."""
    draws = np.random.default_rng(seed)
    x = draws.random((n, pixels))
    x[:, :2] = draws.integers(0, 2, (n, 2))  # on the border of the box
    g = draws.normal(size=(n, pixels))
    most = np.maximum(g * (1 - x), -g * x).sum(1)
    return x, g, share * most


def images(v):
    return torch.tensor(v).view(len(v), 1, 3, 3)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("share", [0.05, 0.4, 0.8, 0.97])
def test_the_smallest_step_is_scipys(norm, share):
    x, g, gain = problem(share)
    step = smallest_step(images(x), images(g), torch.tensor(gain), norm).view(len(x), -1).numpy()
    length = np.abs(step).max(1) if norm == "linf" else np.linalg.norm(step, axis=1)
    expected = [least(*row, norm) for row in zip(x, g, gain, strict=True)]
    assert length == pytest.approx(expected, rel=1e-5)
    assert (g * step).sum(1) == pytest.approx(gain, rel=1e-9)
    assert (x + step).min() >= 0
    assert (x + step).max() <= 1


@pytest.mark.parametrize("norm", NORMS)
def test_what_the_box_does_not_hold_is_its_corner(norm):
    x, g, gain = problem(2.0)
    step = smallest_step(images(x), images(g), torch.tensor(gain), norm).view(len(x), -1)
    assert torch.equal(torch.tensor(x) + step, torch.tensor((g > 0).astype(float)))


@pytest.mark.parametrize("norm", NORMS)
def test_nothing_to_gain_and_no_slope_are_no_step(norm):
    x, g, gain = problem(0.3)
    none = smallest_step(images(x), images(g), torch.tensor(0 * gain - 1), norm)
    flat = smallest_step(images(x), images(0 * g), torch.tensor(gain), norm)
    assert not none.any()
    assert not flat.any()


def linear(classes, seed, centre):
    """Return a linear net on 3 x 3 images, images around ``centre``, and the nets' answers."""
    draws = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, classes))
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(classes, 9, generator=draws))
        model[1].bias.copy_(torch.randn(classes, generator=draws) / 4)
    x = centre + 0.2 * (torch.rand(20, 1, 3, 3, generator=draws) - 0.5)
    if centre != 0.5:
        x = x.clamp(0, 1)
    return model, x, model(x).argmax(1)


def truths(model, x, y, norm):
    """Return the distance of each image to the nearest class that the box holds, by scipy."""
    w, b = (v.detach().double().numpy() for v in model[1].parameters())
    flat = x.flatten(1).double().numpy()
    found = []
    for image, label in zip(flat, y.tolist(), strict=True):
        own = []
        for other in set(range(len(b))) - {label}:
            g = w[other] - w[label]
            gain = b[label] - b[other] - g @ image
            if gain < 0.999 * np.maximum(g * (1 - image), -g * image).sum():
                own.append(least(image, g, gain, norm))
        found.append(min(own, default=np.inf))
    return np.array(found)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("classes", [2, 12])
@pytest.mark.parametrize("centre", [0.5, 0.05, 1.0])
@pytest.mark.parametrize("budget", [50, 100])
def test_linear_models_are_solved(norm, classes, centre, budget):
    """Also where the box cuts the step off, and where the runner-up is not the nearest class."""
    model, x, y = linear(classes, 3, centre)
    found = smallest_perturbation(model, x, y, norm=norm, budget=budget)
    exact = truths(model, x, y, norm)
    there = np.isfinite(exact)
    assert there.sum() > 5
    size = found.size.numpy()
    assert (size[there] >= exact[there] * (1 - 1e-5)).all()
    assert (size[there] <= exact[there] * 1.01).all()
