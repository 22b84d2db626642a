"""Norms from above, against singular values of matrices that were written out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from metrics.bounds import spectral
from metrics.bounds.gains import convolution, pooling
from metrics.bounds.operations import Convolution
from metrics.bounds.program import Program, read

FEW = settings(max_examples=40, deadline=None)


def matrix_of(function, shape) -> torch.Tensor:
    """Return ``(inputs, outputs)``: what a linear function does to each pixel alone."""
    eye = torch.eye(torch.Size(shape).numel(), dtype=torch.float64).view(-1, *shape)
    return function(eye).flatten(1) - function(torch.zeros_like(eye[:1])).flatten(1)


def norm_of(function, shape) -> float:
    return float(torch.linalg.matrix_norm(matrix_of(function, shape), 2))


def convolution_of(weight, **settings) -> Convolution:
    return Convolution(weight.double(), None, **settings)


def program_of(*layers: nn.Module, shape=(2, 7, 7)) -> Program:
    model = nn.Sequential(*layers, nn.Flatten()).eval()
    return read(model, torch.rand(2, *shape))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32))
@FEW
def test_a_matrix(rows, columns, seed):
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    true = float(torch.linalg.matrix_norm(matrix.double(), 2))
    assert true <= spectral.matrix_norm(matrix) <= true * (1 + 1e-5)


@given(
    groups=st.integers(1, 2),
    outputs=st.integers(1, 3),
    inputs=st.integers(1, 3),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    size=st.tuples(st.integers(7, 9), st.integers(7, 9)),
    seed=st.integers(0, 2**32),
)
@FEW
def test_every_form_of_a_convolution_is_above_its_norm(
    groups, outputs, inputs, kernel, stride, padding, dilation, size, seed
):
    draws = torch.Generator().manual_seed(seed)
    weight = torch.randn(groups * outputs, inputs, *kernel, generator=draws)
    conv = convolution_of(weight, stride=stride, padding=padding, dilation=dilation, groups=groups)
    shape = (groups * inputs, *size)
    true = norm_of(conv.forward, shape)
    forms = convolution.tight(conv, shape)
    assert {f.formula for f in forms} == {"m‖W‖_F", "m‖W_mat‖₂", "max σ(Ŵ)"}
    for form in forms:
        assert form.gain >= true, form
    assert forms[1].gain <= forms[0].gain * (1 + 1e-5)


def test_a_blur_of_5_x_5():
    # Reference test 18: the operator's norm is 24.295, the paper's 5, which is no bound.
    conv = convolution_of(torch.ones(1, 1, 5, 5))
    assert norm_of(conv.forward, (1, 28, 28)) == pytest.approx(24.295, abs=1e-3)
    printed = convolution.printed(conv, (1, 28, 28), pooled=False)
    assert (round(printed.gain, 3), printed.valid) == (5, False)
    assert [round(f.gain, 3) for f in convolution.tight(conv, (1, 28, 28))] == [25, 25, 25]


def test_windows_that_do_not_overlap():
    # Reference test 18: all are 3. The response of the same kernel without a stride is 9.
    conv = convolution_of(torch.ones(1, 1, 3, 3), stride=(3, 3))
    assert [round(f.gain, 3) for f in convolution.tight(conv, (1, 15, 15))] == [3, 3, 3]
    assert convolution.printed(conv, (1, 15, 15), pooled=False).valid
    whole = spectral.response_norm(torch.ones(1, 1, 1, 3, 3), (1, 1), (1, 1), (15, 15))
    assert round(whole, 3) == 9


def test_the_response_is_close_where_images_are_large():
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    conv = convolution_of(weight, padding=(1, 1))
    true = norm_of(conv.forward, (3, 16, 16))
    response = convolution.tight(conv, (3, 16, 16))[2].gain
    assert true <= response <= 1.02 * true


@pytest.mark.parametrize("outputs", [1, 4, 40])
@pytest.mark.parametrize("at_once", [2**22, 500])
def test_no_frequency_is_lost(outputs, at_once, monkeypatch):
    monkeypatch.setattr(spectral, "AT_ONCE", at_once)  # a row of frequencies at a time
    weight = torch.randn(1, outputs, 6, 3, 3, generator=torch.Generator().manual_seed(1))
    found = spectral.response_norm(weight, (1, 1), (1, 1), (20, 21))
    waves = torch.fft.fft2(weight[0].double(), s=(20, 21)).permute(2, 3, 0, 1)
    true = float(torch.linalg.matrix_norm(waves, 2).max())
    assert true <= found <= true * (1 + 1e-5)


def test_what_would_take_too_long_is_left_out(monkeypatch):
    monkeypatch.setattr(spectral, "MOST_WORK", 1.0)
    conv = convolution_of(torch.ones(2, 2, 3, 3))
    assert [f.formula for f in convolution.tight(conv, (2, 9, 9))] == ["m‖W‖_F", "m‖W_mat‖₂"]


POOLS = {
    "average q2 s2": (nn.AvgPool2d(2), (2, 8, 8)),
    "average q3 s2 p1": (nn.AvgPool2d(3, 2, 1), (2, 7, 7)),
    "average q3 s1 p1": (nn.AvgPool2d(3, 1, 1), (1, 6, 5)),
    "average without padding": (nn.AvgPool2d(3, 1, 1, count_include_pad=False), (1, 6, 5)),
    "average, ceil": (nn.AvgPool2d(3, 2, ceil_mode=True), (1, 8, 6)),
    "average, divisor": (nn.AvgPool2d(2, 1, divisor_override=3), (1, 5, 5)),
    "average of rectangles": (nn.AvgPool2d((1, 3), (2, 1)), (1, 5, 6)),
    "adaptive average": (nn.AdaptiveAvgPool2d((3, 2)), (1, 7, 5)),
    "global average": (nn.AdaptiveAvgPool2d(1), (2, 5, 4)),
}


@pytest.mark.parametrize("name", POOLS)
def test_averages(name):
    pool, shape = POOLS[name]
    operation = next(s.operation for s in program_of(pool, shape=shape).steps[1:])
    true = norm_of(pool.double(), shape)
    simple, *exact = pooling.tight(operation)
    assert simple.gain >= true
    assert exact[0].gain == pytest.approx(true, rel=1e-5)
    assert exact[0].gain >= true


@pytest.mark.parametrize(
    ("pool", "simple", "paper"),  # reference test 23
    [
        (nn.MaxPool2d(2), 1.0, 4.0),
        (nn.AvgPool2d(2), 0.5, 4.0),
        (nn.MaxPool2d(3, 2), 2.0, 3.0),
        (nn.LPPool2d(1, 2), 2.0, 16.0),
        (nn.LPPool2d(2, 2), 1.0, 8.0),
    ],
)
def test_pools(pool, simple, paper):
    program = program_of(pool, shape=(1, 8, 8))
    operation = program.steps[1].operation
    assert pooling.simple(operation).gain == pytest.approx(simple, rel=1e-5)
    assert pooling.printed(operation).gain == pytest.approx(paper, rel=1e-5)
    assert largest_stretch(pool.double(), (1, 8, 8)) <= simple * (1 + 1e-5)


def largest_stretch(function, shape, steps=60) -> float:
    """Return the largest ||f(x + r) - f(x)|| / ||r|| that gradient ascent over x and r finds."""
    draws = torch.Generator().manual_seed(0)
    x = torch.rand(64, *shape, generator=draws, dtype=torch.float64).requires_grad_()
    r = (1e-3 * torch.randn(64, *shape, generator=draws, dtype=torch.float64)).requires_grad_()
    optimizer = torch.optim.Adam([x, r], lr=1e-3)
    for _ in range(steps):
        moved = (function(x + r) - function(x)).flatten(1).norm(dim=1)
        ratio = moved / r.flatten(1).norm(dim=1)
        optimizer.zero_grad()
        (-ratio.sum()).backward()
        optimizer.step()
    return float(ratio.detach().max())


def test_a_stretch_of_the_simple_factor_is_reached():
    # An overlapping max pool doubles a step of the pixel that four windows share.
    pool = nn.MaxPool2d(3, 2)
    x = torch.zeros(1, 1, 5, 5, dtype=torch.float64)
    moved = x.clone()
    moved[0, 0, 2, 2] = 1
    assert float((pool(moved) - pool(x)).norm()) == 2.0
