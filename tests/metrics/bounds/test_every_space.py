"""No attack gets below a valid bound, on random and trained nets of every search space."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metrics import APGD, smallest_perturbation
from metrics.bounds.lower import lower_bounds
from metrics.robustness.smallest import gradient_line
from search_spaces import SEARCH_SPACES, Task

SMALL = {
    "depth-channels": {"depth": (2, 3), "channels": (4,), "stem": "small"},
    "resnet": {"depth": (18,), "stem": "small"},
    "cifar-resnet": {"form": ("basic", "wide"), "depth": (8, 10)},
    "nasbench201": {"cells": 1, "filters": 4},
    "nasnet": {"blocks": 3, "cells": 1, "filters": 4},
    "feedforward": {"units": (30, 100), "channels": (4, 8)},
    "vgg-lite": {"filters": (4, 8), "units": (16,)},
    "lenet": {"filters": (4,), "units": (16,), "relu": (False, True)},
    "torchvision": {"model": ("squeezenet1_1", "shufflenet_v2_x0_5")},
}
SIZE = {"torchvision": 32}
IMAGES = {"torchvision": 12, "resnet": 12}  # of slow nets; 36 of the others


def bright_quarters(n, size, classes, seed):
    """Return images of which one quarter is brighter: which one is the class."""
    draws = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (n,), generator=draws)
    x = 0.5 * torch.rand(n, 3, size, size, generator=draws)
    half = size // 2
    for i, label in enumerate(y.tolist()):
        down, right = half * (label // 2), half * (label % 2)
        x[i, :, down : down + half, right : right + half] += 0.4
    return x, y


def net_of(space_name, seed, steps):
    """Return a net of a sampled architecture after so many steps of training, and images."""
    torch.manual_seed(seed)
    classes = 2 if space_name == "vgg-lite" else 4
    size = SIZE.get(space_name, 16)
    x, y = bright_quarters(IMAGES.get(space_name, 36), size, classes, seed)
    space = SEARCH_SPACES[space_name](**SMALL[space_name])
    task = Task((3, size, size), classes, mean=(0.4, 0.5, 0.3), std=(0.2, 0.3, 0.25))
    model = space.build(space.sample(np.random.default_rng(seed)), task)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()
    with torch.no_grad():
        return model, x, model(x).argmax(1)


def smallest_found(model, x, y):
    """Return ``(N,)``: the L2 length of the nearest misclassified image that attacks found."""
    found = gradient_line(model, x, y, mode="margin", length=8.0, scalings=80, clip=True)
    best = (found.images.double() - x.double()).flatten(1).norm(dim=1)
    best = best.where(found.size.isfinite(), torch.inf)
    for epsilon in (0.25, 1.0, 8.0):
        attacked = APGD(epsilon=epsilon, norm="l2", steps=8)(model, x, y)
        with torch.no_grad():
            broken = model(attacked).argmax(1) != y
        length = (attacked.double() - x.double()).flatten(1).norm(dim=1)
        best = torch.minimum(best, length.where(broken, torch.inf))
    return best


def test_every_space_is_here():
    assert SMALL.keys() == SEARCH_SPACES.keys()


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n == "resnet" else n for n in SMALL]
)
def test_no_attack_is_below_a_bound(name):
    # Seeds and steps with which some image can be broken.
    model, x, y = net_of(name, int(name == "torchvision"), 30 if name == "depth-channels" else 8)
    simple, tight = (
        lower_bounds(model, x, y, mode=mode, linear=False) for mode in ("certified", "tight")
    )
    assert simple.certified
    assert tight.certified
    assert (tight.radius >= simple.radius).all()
    assert (tight.radius > 0).all()
    found = smallest_found(model, x, y)
    assert found.isfinite().any()
    assert (found >= tight.radius).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("steps", [0, 60])
@pytest.mark.parametrize("seed", range(1, 5))
def test_no_attack_is_below_a_bound_of_many_nets(name, steps, seed):
    """3,840 images and norms in all, half of them of nets that are trained."""
    model, x, y = net_of(name, seed, steps)
    for norm in ("l2", "linf"):
        bound = lower_bounds(model, x, y, norm=norm)
        assert bound.certified
        found = smallest_perturbation(
            model, x, y, norm=norm, budget=60, generator=torch.Generator().manual_seed(seed)
        )
        assert (found.size >= bound.radius).all()
