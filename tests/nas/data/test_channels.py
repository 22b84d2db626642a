"""``channels: 3``: grey images as nets for colour images want them, and nothing else changed."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

from nas.data.arrays import Images, prepare, prepare_test
from nas.data.config import DataConfig, Limit
from nas.data.datasets import load_images, load_test_images
from nas.errors import InputError


def images(channels=1, n=60, classes=3, side=5, dtype=np.uint8):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (n, channels, side, side), dtype=np.uint8)
    pixels = pixels if dtype == np.uint8 else (pixels / 255).astype(np.float32)
    return Images(pixels, np.arange(n) % classes, tuple("abcdefghijklmnopqrst"[:classes]))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("classes", [None, (2, 0)])
def test_grey_images_have_three_equal_channels(dtype, classes):
    grey = prepare(images(dtype=dtype), DataConfig(classes=classes))
    three = prepare(images(dtype=dtype), DataConfig(classes=classes, channels=3))
    for ours, before in ((three.train, grey.train), (three.validation, grey.validation)):
        assert ours.pixels.dtype == before.pixels.dtype
        assert torch.equal(ours.pixels, torch.cat([before.pixels] * 3, dim=1))
        assert torch.equal(ours.labels, before.labels)
        assert ours.pixels.is_contiguous()
    assert three.task.shape == (3, 5, 5)
    assert three.task.classes == grey.task.classes
    shown = grey.train.images().double()
    assert three.task.mean == pytest.approx((shown.mean().item(),) * 3, rel=1e-6)
    assert three.task.std == pytest.approx((shown.std(correction=0).item(),) * 3, rel=1e-6)


def test_test_images_too():
    config = DataConfig(channels=3, classes=(7, 3), limit=Limit(test=20))
    grey = DataConfig(classes=(7, 3), limit=Limit(test=20))
    ours, before = (prepare_test(load_test_images(c), c) for c in (config, grey))
    assert ours.pixels.shape == (20, 3, 8, 8)
    assert torch.equal(ours.pixels, before.pixels.expand(-1, 3, -1, -1))
    assert torch.equal(ours.labels, before.labels)
    assert prepare(load_images(config), config).task.shape == (3, 8, 8)


def test_colour_images_are_unchanged():
    plain, three = (prepare(images(3), DataConfig(channels=c)) for c in (None, 3))
    assert torch.equal(plain.train.pixels, three.train.pixels)
    assert plain.task == three.task


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("prepared", [prepare, prepare_test])
def test_images_of_other_channels_are_refused_in_one_line(channels, prepared):
    expected = f"data.channels: expected null for images of {channels} channels, got 3"
    with pytest.raises(InputError, match=f"^{expected}$"):
        prepared(images(channels), DataConfig(channels=3))


@pytest.mark.parametrize("channels", [0, 1, 2, 4])
def test_three_is_the_only_number(channels):
    with pytest.raises(ValueError, match=f"^channels: expected 3 or null, got {channels}$"):
        DataConfig(channels=channels)


@pytest.mark.parametrize("prepared", [prepare, prepare_test])
@pytest.mark.parametrize(
    "settings", [{"classes": (0, 1)}, {"limit": Limit(train=200, validation=40, test=200)}], ids=str
)
def test_what_is_not_picked_is_not_copied_three_times(prepared, settings):
    many = images(n=20_000, classes=20, side=20)
    config = DataConfig(channels=3, **settings)
    tracemalloc.start()
    prepared(many, config)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * many.pixels.nbytes  # a copy of all in three channels has three times them
