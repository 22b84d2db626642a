"""Convolutions (Peck et al. 2017, theorem 4.2, which fails where windows overlap)."""

from __future__ import annotations

import math

from torch import Tensor

from metrics.bounds.gains.form import Form
from metrics.bounds.operations import Convolution, coverage, windows
from metrics.bounds.spectral import matrix_norm, outward, response_norm

PRINTED = "theorem 4.2 fails where windows overlap: a pixel feeds several"
JOINT = "holds together with the pool behind it"


def printed(conv: Convolution, shape: tuple[int, ...], *, pooled: bool) -> Form:
    """Return the paper's ||W||_F.

    Args:
        conv: the layer.
        shape: of its input, without the batch.
        pooled: a max or average pool, taken by the paper's own factor, follows directly (or behind
            a ReLU): each output moves by at most ||W_i||_F ||R||, so the two hold jointly.
    """
    overlaps = overlap(conv, shape) > 1
    note = JOINT if overlaps and pooled else PRINTED if overlaps else ""
    return Form("‖W‖_F", _frobenius(conv.weight), "quoted", not overlaps or pooled, note)


def simple(conv: Convolution, shape: tuple[int, ...]) -> Form:
    """Return m ||W||_F, m^2 the number of windows that a pixel lies in at most."""
    return Form("m‖W‖_F", overlap(conv, shape) * _frobenius(conv.weight))


def tight(conv: Convolution, shape: tuple[int, ...]) -> list[Form]:
    """Return every valid form that is not too slow to compute."""
    weight = grouped(conv)
    largest = max(matrix_norm(w.flatten(1)) for w in weight)
    forms = [simple(conv, shape), Form("m‖W_mat‖₂", overlap(conv, shape) * largest)]
    padded = [n + 2 * p for n, p in zip(shape[1:], conv.padding, strict=True)]
    response = response_norm(weight, conv.stride, conv.dilation, (padded[0], padded[1]))
    if response is not None:
        forms.append(Form("max σ(Ŵ)", response))
    return forms


def overlap(conv: Convolution, shape: tuple[int, ...]) -> float:
    """Return m: the root of the number of windows that a pixel feeds, at most.

    ||W * R||^2 is at most the sum over windows of ||W_mat||^2 times the window's ||R||^2, in which
    each pixel comes m^2 times.
    """
    counts = []
    for a, size in enumerate(shape[1:]):
        k, s, p, d = (
            v[a] for v in (conv.weight.shape[2:], conv.stride, conv.padding, conv.dilation)
        )
        outputs = (size + 2 * p - d * (k - 1) - 1) // s + 1
        counts.append(coverage(windows(size, k, s, p, d, outputs)))
    return math.sqrt(counts[0] * counts[1])


def grouped(conv: Convolution) -> Tensor:
    """Return the weights as ``(groups, outputs, inputs, height, width)`` of each group."""
    return conv.weight.view(conv.groups, -1, *conv.weight.shape[1:])


def _frobenius(weight: Tensor) -> float:
    return outward(float(weight.double().norm()))
