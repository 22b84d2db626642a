"""Augmentation: whole images move, and squares of a given side are blackened about any pixel."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
import torch
from torch import nn

from nas.trial.augmentation import augment
from nas.trial.recipe import Recipe


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_augmentation_moves_whole_images():
    """Every augmented image is a mirrored or shifted window of the padded original."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(20, 2, 5, 6, generator=generator)
    recipe = Recipe(flip=True, crop_padding=2)
    padded = nn.functional.pad(x, (2, 2, 2, 2))
    mirrored = nn.functional.pad(x.flip(3), (2, 2, 2, 2))
    seen = set()
    for i, image in enumerate(augment(x, recipe, generator)):
        places = [
            (which, r, c)
            for which, source in enumerate((padded, mirrored))
            for r in range(5)
            for c in range(5)
            if torch.equal(source[i, :, r : r + 5, c : c + 6], image)
        ]
        assert places
        seen.update(places)
    assert len(seen) > 10
    assert torch.equal(augment(x, Recipe(), generator), x)


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_cutout_blackens_a_square_about_any_pixel(side):
    """What is black is one of the H W squares of that side, cut at the borders, each as often."""
    height, width, draws = 4, 5, 6000
    images = torch.rand(draws, 2, height, width, generator=generator()) + 0.5
    found = augment(images, Recipe(cutout=side), generator(1))
    black = found == 0
    assert torch.equal(black[:, 0], black[:, 1])  # all channels
    assert torch.equal(found[~black], images[~black])
    expected = Counter()
    for row, column in product(range(height), range(width)):
        square = torch.zeros(height, width, dtype=torch.bool)
        for r, c in product(range(side), range(side)):
            y, x = row - side // 2 + r, column - side // 2 + c
            if 0 <= y < height and 0 <= x < width:
                square[y, x] = True
        expected[tuple(square.flatten().tolist())] += draws / (height * width)
    seen = Counter(tuple(mask.flatten().tolist()) for mask in black[:, 0])
    assert seen.keys() == expected.keys()
    statistic = sum((seen[k] - n) ** 2 / n for k, n in expected.items())
    assert statistic < 50.8  # of chi square with 19 or fewer degrees of freedom: 1 in 10,000


def test_cutout_comes_after_the_crop_and_draws_from_the_generator():
    """Flip and crop are those of the recipe without it, and only then a square is blackened."""
    images = torch.rand(30, 1, 6, 6, generator=generator()) + 0.5
    plain = Recipe(flip=True, crop_padding=2)
    cut = Recipe(flip=True, crop_padding=2, cutout=3)
    moved, both = augment(images, plain, generator(1)), augment(images, cut, generator(1))
    assert all(((both == moved) | (both == 0)).flatten().tolist())
    assert not torch.equal(both, moved)
    assert torch.equal(both, augment(images, cut, generator(1)))
    assert not torch.equal(both, augment(images, cut, generator(2)))


def test_a_cutout_larger_than_the_images_is_refused():
    augment(torch.rand(2, 1, 4, 6), Recipe(cutout=4), generator())
    with pytest.raises(ValueError, match=r"^cutout: expected at most the 4 pixels .*got 5"):
        augment(torch.rand(2, 1, 4, 6), Recipe(cutout=5), generator())
    with pytest.raises(ValueError, match="^cutout: expected >= 0, got -1"):
        Recipe(cutout=-1)
