"""Layers with weights, and what a model does to their outputs."""

from __future__ import annotations

from typing import Any

import torch

from metrics.bounds.operations import Convolution, Dense, Ranking, Scaling, Unknown
from metrics.bounds.reading.reader import Reader, Ref, called, name_of, only, pair
from metrics.bounds.reading.shapes import padded


def convolution(
    reader: Reader,
    node: Any,
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Ref:
    """conv2d, also with padding by name."""
    only(node, x, weight, bias)
    d, k = pair(dilation), tuple(weight.shape[2:])
    if isinstance(padding, str):
        whole = [0, 0] if padding == "valid" else [d[a] * (k[a] - 1) for a in (0, 1)]
        if any(w % 2 for w in whole):
            down, right = (w % 2 for w in whole)
            x = padded(reader, node, x, (0, right, 0, down), "constant", 0.0)
        padding = [w // 2 for w in whole]
    conv = Convolution(weight, bias, pair(stride), pair(padding), d, groups)
    return reader.step(node, conv, x)


def dense(reader: Reader, node: Any, x: Any, weight: Any, bias: Any = None) -> Ref:
    """Linear."""
    only(node, x, weight, bias)
    return reader.step(node, Dense(weight, bias), x)


def addmm(reader: Reader, node: Any, bias: Any, x: Any, weight: Any) -> Ref:
    """bias + x weight."""
    only(node, x, weight, bias)
    return reader.step(node, Dense(weight.t(), bias.expand(weight.shape[1])), x)


def matmul(reader: Reader, node: Any, x: Any, weight: Any) -> Ref:
    """x weight, a matrix of constants."""
    only(node, x, weight)
    if weight.ndim != 2:
        raise Unknown(f"{called(node)} with {weight.ndim} axes")
    return reader.step(node, Dense(weight.t(), None), x)


def batch_norm(
    reader: Reader,
    node: Any,
    x: Any,
    weight: Any,
    bias: Any,
    mean: Any,
    variance: Any,
    training: bool,
    momentum: float,
    epsilon: float,
    *rest: Any,
) -> Ref:
    """Batch norm with running statistics."""
    if training or mean is None:
        raise Unknown("batch norm with the statistics of the batch")
    only(node, x, weight, bias, mean, variance)
    scale = (variance + epsilon).rsqrt() * (1 if weight is None else weight)
    shift = (0 if bias is None else bias) - mean * scale
    axes = (1, -1, *(1 for _ in reader.shape(x)[1:]))
    return reader.step(node, Scaling(scale.view(axes), shift.view(axes)), x)


def softmax(reader: Reader, node: Any, x: Ref, axis: int, *rest: Any) -> Ref:
    """softmax and log-softmax over the classes, which keep their order."""
    if axis % (1 + len(reader.shape(x))) != 1 or len(reader.shape(x)) != 1:
        raise Unknown(f"{called(node)} over other values than the classes")
    function = torch.softmax if name_of(node) == "softmax" else torch.log_softmax
    return reader.step(node, Ranking(name_of(node), lambda v: function(v, 1)), x)
