"""The operations of cells: what they see, what they keep of the sides, and drop-path."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage

from search_spaces.nasnet.operations import OPERATIONS, DropPath, FactorizedReduction


def test_there_are_the_13_operations_of_the_paper():
    assert len(OPERATIONS) == 13


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("stride", [1, 2])
def test_operations_divide_sides_of_any_size_by_the_stride(operation, stride):
    for height, width in itertools.product((1, 2, 3, 8), repeat=2):
        for outputs in (4, 6):
            layer = OPERATIONS[operation](4, outputs, stride).eval()
            y = layer(torch.rand(1, 4, height, width))
            assert y.shape == (1, outputs, -(-height // stride), -(-width // stride))
            assert y.isfinite().all()


def ball(side):
    half = side // 2
    return set(itertools.product(range(-half, half + 1), repeat=2))


REACH = {
    "identity": ball(1),
    "conv_1x3_3x1": ball(3),
    "conv_1x7_7x1": ball(7),
    "dilated_conv_3x3": {(2 * a, 2 * b) for a, b in ball(3)},
    "avg_pool_3x3": ball(3),
    "conv_1x1": ball(1),
    "conv_3x3": ball(3),
    "sep_conv_3x3": ball(5),  # applied twice
    "sep_conv_5x5": ball(9),
    "sep_conv_7x7": ball(13),
}


def reach(layer, size, at):
    """Return which input pixels decide the output at pixel ``at``."""
    layer = layer.eval().double()
    for weight in layer.parameters():
        weight.data.abs_()  # so that no ReLU ends a path
    x = torch.ones(1, 4, size, size, dtype=torch.float64, requires_grad=True)
    layer(x)[0, :, at, at].sum().backward()
    return {tuple(pixel) for pixel in x.grad[0].abs().sum(0).nonzero().tolist()}


@pytest.mark.parametrize("operation", REACH)
def test_convolutions_and_average_pools_see_their_neighbourhood(operation):
    for outputs in (4, 6):
        layer = OPERATIONS[operation](4, outputs, 1)
        assert reach(layer, 21, 10) == {(10 + a, 10 + b) for a, b in REACH[operation]}


@pytest.mark.parametrize("operation", [n for n in REACH if "sep" not in n])
def test_strided_operations_are_centred_on_every_second_pixel(operation):
    """All alike, so that what a block adds is of one place; a second separable one sees further."""
    layer = OPERATIONS[operation](4, 4, 2)
    seen = reach(layer, 21, 5)
    assert seen == {(10 + a, 10 + b) for a, b in REACH[operation]}


def test_a_factorised_reduction_sees_both_diagonal_pixels_of_a_square():
    assert reach(FactorizedReduction(4, 6), 21, 5) == {(10, 10), (11, 11)}
    assert reach(FactorizedReduction(4, 6), 21, 10) == {(20, 20)}  # beyond the border


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_max_pools_are_scipys(kernel, stride):
    x = torch.randn(1, 2, 9, 6)
    expected = ndimage.maximum_filter(x.numpy(), (1, 1, kernel, kernel), mode="nearest")
    y = OPERATIONS[f"max_pool_{kernel}x{kernel}"](2, 2, stride)(x)
    assert np.array_equal(y.numpy(), expected[:, :, ::stride, ::stride])


@pytest.mark.parametrize("stride", [1, 2])
def test_average_pools_leave_the_padding_out(stride):
    """As scipy's sum over the window, divided by the pixels that there are."""
    x = torch.randn(1, 2, 9, 6, dtype=torch.float64)
    window = np.ones((1, 1, 3, 3))
    total, pixels = (
        ndimage.convolve(v, window, mode="constant") for v in (x.numpy(), np.ones(x.shape))
    )
    y = OPERATIONS["avg_pool_3x3"](2, 2, stride)(x)
    assert np.allclose(y.numpy(), (total / pixels)[:, :, ::stride, ::stride])


def test_drop_path_needs_no_draw_at_probability_zero():
    state = torch.get_rng_state()
    x = torch.rand(3, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    assert DropPath(0.0).train()(x) is x
    assert torch.equal(torch.get_rng_state(), state)
