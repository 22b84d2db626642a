"""LeNet in Caffe's form: its size, a forward by hand, how it begins."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from search_spaces import InvalidArchitecture, Task, space_class

LeNet = space_class("lenet")


def build(shape=(1, 28, 28), classes=10, filters=20, units=500, relu=False, seed=0):
    space = LeNet(filters=(filters,), units=(units,), relu=(relu,))
    return space.build(next(iter(space)), Task.plain(shape, classes), seed=seed)


def test_parameters_are_caffes():
    # lenet_train_test.prototxt: 20 and 50 filters of 5 x 5, 500 and 10 units.
    expected = 20 * 26 + 50 * (20 * 25 + 1) + 500 * (800 + 1) + 10 * 501
    assert sum(p.numel() for p in build().parameters()) == expected == 431_080


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 17, 19)])
def test_the_forward_by_hand(shape, relu):
    model = build(shape, filters=4, units=7, relu=relu).eval()
    w1, b1, w2, b2, w3, b3, w4, b4 = model.parameters()
    x = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    h = x
    for weight, bias in ((w1, b1), (w2, b2)):
        h = functional.conv2d(h, weight, bias)
        h = functional.max_pool2d(h.relu() if relu else h, 2, ceil_mode=True)
    h = functional.linear(functional.linear(h.flatten(1), w3, b3).relu(), w4, b4)
    torch.testing.assert_close(model(x), h)


def test_weights_begin_as_caffes():
    for name, p in build().named_parameters():
        if name.endswith("bias"):
            assert (p == 0).all()
        else:
            side = (3 / p[0].numel()) ** 0.5
            assert 0.97 * side < float(p.detach().abs().max()) <= side
            assert float(p.detach().var()) == pytest.approx(1 / p[0].numel(), rel=0.15)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"filters": (3,)}, "filters: expected distinct even numbers"),
        ({"filters": ()}, "filters: expected"),
        ({"units": (5, 5)}, "units: expected distinct integers"),
        ({"relu": (1,)}, "relu: expected distinct booleans"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        LeNet(**settings)


def test_images_that_are_too_small():
    assert build((1, 16, 16), filters=2, units=3)(torch.rand(1, 1, 16, 16)).shape == (1, 10)
    with pytest.raises(InvalidArchitecture, match="at least 16 x 16.*got 15 x 28"):
        build((1, 15, 28))
