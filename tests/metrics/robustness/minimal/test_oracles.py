"""The sizes found against brute force on a plane, and against adv-lib's attacks."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch import nn

from metrics import smallest_perturbation
from nas.data.arrays import prepare
from nas.data.config import DataConfig, Limit
from nas.data.datasets import load_images
from nas.trial.recipe import Recipe
from nas.trial.training import drain, train
from search_spaces import DepthChannels

NORMS = ("linf", "l2")
PITCH = 1 / 1000


class Plane(nn.Module):
    """Three classes in the square [0, 1]², with curved borders between them."""

    def __init__(self, seed):
        super().__init__()
        draws = torch.Generator().manual_seed(seed)
        self.a = 3 * torch.randn(2, 12, generator=draws)
        self.b = torch.randn(12, generator=draws)
        self.c = torch.randn(12, 3, generator=draws)

    def forward(self, x):
        return torch.tanh((x.flatten(1) - 0.5) @ self.a + self.b) @ self.c


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("seed", range(3))
def test_a_plane_is_searched_as_well_as_by_brute_force(norm, seed):
    """Every point of a grid of 1001 x 1001 is asked."""
    model = Plane(seed)
    line = torch.linspace(0, 1, 1001)
    grid = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).view(-1, 1, 1, 2)
    x = torch.rand(30, 1, 1, 2, generator=torch.Generator().manual_seed(seed))
    y = model(x).argmax(1)
    answers = model(grid).argmax(1)
    draws = torch.Generator().manual_seed(0)
    found = smallest_perturbation(model, x, y, norm=norm, budget=200, generator=draws)
    worse = 0
    for image, label, size in zip(x, y, found.size, strict=True):
        delta = (grid[answers != label] - image).flatten(1)
        far = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
        nearest = float(far.min()) if len(far) else float("inf")
        assert size >= nearest - PITCH  # nothing nearer is wrong, to the pitch of the grid
        worse += bool(size > 1.01 * nearest + PITCH)
    assert worse <= 1  # a border of another side of the image


@pytest.fixture(scope="module")
def attacks():
    """Return adv-lib's attacks; a stub stands for visdom, which they import and do not use."""
    sys.modules.setdefault("visdom", types.ModuleType("visdom"))
    pytest.importorskip("adv_lib")
    import adv_lib.attacks

    return adv_lib.attacks


def net(data, adversary):
    space = DepthChannels(depth=(2,), channels=(16,), stem="small")
    model = space.build(space.architecture({"depth": 2, "channels": 16}), data.task, seed=0)
    recipe = Recipe(
        epochs=3,
        adversary=adversary,
        adversarial_share=1.0,
        epsilon=16 / 255,
        steps=5,
        selection_images=0,
    )
    drain(train(model, data, recipe, recipe.attack(), torch.Generator().manual_seed(0)))
    return model.eval()


@pytest.fixture(scope="module")
def fashion(data_root):
    config = DataConfig(
        name="fashion-mnist", root=str(data_root), limit=Limit(train=4000, validation=60)
    )
    return prepare(load_images(config), config)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("adversary", ["none", "pgd"])
def test_it_is_no_worse_than_adv_lib_at_no_more_passes(adversary, fashion, attacks):
    """The median is at most 1.05 times that of the best of FMN, DDN and the trust region."""
    model = net(fashion, adversary)
    x, y = fashion.validation.images(), fashion.validation.labels
    right = model(x).argmax(1) == y
    x, y = x[right], y[right]
    for norm in NORMS:
        for budget in (50, 100, 200, 1000):
            order = float("inf") if norm == "linf" else 2
            theirs = [attacks.fmn(model, x.clone(), y, norm=order, steps=budget)]
            if norm == "l2":
                theirs.append(attacks.ddn(model, x.clone(), y, steps=budget, levels=None))
            theirs.append(attacks.tr(model, x.clone(), y, iter=budget // 4, p=order))
            medians = []
            for images in theirs:
                images = images.detach().clamp(0, 1)
                delta = (images.double() - x.double()).flatten(1)
                size = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
                size[model(images).argmax(1) == y] = torch.inf
                medians.append(float(size.median()))
            draws = torch.Generator().manual_seed(0)
            ours = smallest_perturbation(model, x, y, norm=norm, budget=budget, generator=draws)
            assert ours.forwards <= budget * len(x)
            assert ours.backwards <= budget * len(x)
            assert float(ours.size.median()) <= 1.05 * min(medians), (norm, budget, medians)
