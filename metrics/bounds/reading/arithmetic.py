"""Sums, products and joins of tensors, and of tensors and constants."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metrics.bounds.operations import Concatenation, Scaling, Sum, Unknown
from metrics.bounds.reading.reader import Reader, Ref, called


def total(reader: Reader, node: Any, a: Any, b: Any, *, alpha: float = 1) -> Ref:
    """add: of two tensors, or of one and a constant."""
    return _total(reader, node, a, b, float(alpha))


def difference(reader: Reader, node: Any, a: Any, b: Any, *, alpha: float = 1) -> Ref:
    """sub."""
    return _total(reader, node, a, b, -float(alpha))


def difference_from(reader: Reader, node: Any, a: Any, b: Any, alpha: float = 1) -> Ref:
    """rsub: b minus a."""
    return _total(reader, node, b, a, -float(alpha))


def _total(reader: Reader, node: Any, a: Any, b: Any, factor: float) -> Ref:
    shape = tuple(node.meta["val"].shape)
    if isinstance(a, Ref) and isinstance(b, Ref):
        both = (reader.spread(node, a, shape), reader.spread(node, b, shape))
        return reader.step(node, Sum((1.0, factor)), *both)
    if isinstance(a, Ref):
        return _scaled(reader, node, a, 1.0, factor * _tensor(b))
    return _scaled(reader, node, b, factor, _tensor(a))


def product(reader: Reader, node: Any, a: Any, b: Any) -> Ref:
    """mul by a constant."""
    if isinstance(a, Ref) and isinstance(b, Ref):
        raise Unknown(f"{called(node)} of two tensors that depend on the images")
    x, factor = (a, b) if isinstance(a, Ref) else (b, a)
    return _scaled(reader, node, x, factor, 0.0)


def quotient(reader: Reader, node: Any, a: Any, b: Any, **rounding: Any) -> Ref:
    """div by a constant."""
    if not isinstance(a, Ref) or isinstance(b, Ref) or rounding.get("rounding_mode"):
        raise Unknown(f"{called(node)} by what depends on the images, or rounded")
    return _scaled(reader, node, a, 1 / _tensor(b), 0.0)


def negative(reader: Reader, node: Any, x: Ref) -> Ref:
    """neg."""
    return _scaled(reader, node, x, -1.0, 0.0)


def _scaled(reader: Reader, node: Any, x: Ref, scale: Any, shift: Any) -> Ref:
    shape = tuple(node.meta["val"].shape)
    scale, shift = _tensor(scale), _tensor(shift)
    for constant in (scale, shift):
        if constant.ndim == len(shape) and constant.shape[0] not in (1,):
            raise Unknown(f"{called(node)} with a constant for each image of a batch")
    return reader.step(node, Scaling(scale, shift), reader.spread(node, x, shape))


def concatenation(reader: Reader, node: Any, tensors: list[Any], axis: int = 0) -> Ref:
    """cat, constants among them."""
    shape = tuple(node.meta["val"].shape)
    axis %= len(shape)
    if axis == 0:
        raise Unknown("aten.cat along the batch")
    return reader.step(
        node, Concatenation(axis), *(_tensor_step(reader, node, tensor) for tensor in tensors)
    )


def _tensor_step(reader: Reader, node: Any, value: Any) -> Ref:
    if isinstance(value, Ref):
        return value
    if value.shape[0] != reader.batch or not (value == value[:1]).all():
        raise Unknown(f"{called(node)} with a constant for each image of a batch")
    return reader.constant(node, value[0])


def zeros(reader: Reader, node: Any, x: Ref, **_: Any) -> Ref:
    """zeros_like."""
    return reader.constant(node, torch.zeros(reader.shape(x), dtype=torch.float64))


def ones(reader: Reader, node: Any, x: Ref, **_: Any) -> Ref:
    """ones_like."""
    return reader.constant(node, torch.ones(reader.shape(x), dtype=torch.float64))


def _tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64)
