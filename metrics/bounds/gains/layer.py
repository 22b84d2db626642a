"""The form that each kind of layer takes in each mode."""

from __future__ import annotations

from collections.abc import Sequence

from metrics.bounds.gains import convolution, dense, pointwise, pooling
from metrics.bounds.gains.form import Form, least
from metrics.bounds.operations import (
    Activation,
    Concatenation,
    Convolution,
    Dense,
    Operation,
    Pool,
    Ranking,
    Rearrangement,
    Scaling,
    Sum,
)


def form_of(layer: Operation, shape: tuple[int, ...], mode: str, *, pooled: bool = False) -> Form:
    """Return how a layer with one input stretches what comes in.

    Args:
        layer: what it does.
        shape: of its input, without the batch.
        mode: one of ``MODES``.
        pooled: as in :func:`metrics.bounds.gains.convolution.printed`.
    """
    if isinstance(layer, Convolution):
        if mode == "paper":
            return convolution.printed(layer, shape, pooled=pooled)
        forms = convolution.tight(layer, shape) if mode == "tight" else None
        return least(forms) if forms else convolution.simple(layer, shape)
    if isinstance(layer, Pool):
        if mode == "paper":
            return pooling.printed(layer)
        return least(pooling.tight(layer)) if mode == "tight" else pooling.simple(layer)
    if isinstance(layer, Dense):
        return dense.norm(layer)
    if isinstance(layer, Scaling):
        return pointwise.scaling(layer)
    if isinstance(layer, Activation):
        return pointwise.activation(layer)
    if isinstance(layer, Rearrangement):
        return pointwise.rearrangement(layer)
    if isinstance(layer, Ranking):
        raise ValueError(f"bounds: no bound is known for {layer.name} before the logits")
    raise TypeError(f"expected a layer with one input, got {type(layer).__name__}")


def joined(layer: Operation, gains: Sequence[float]) -> Form:
    """Return the form of what joins several tensors, given what has been done to each."""
    if isinstance(layer, Sum):
        return pointwise.total(layer, list(gains))
    if isinstance(layer, Concatenation):
        return pointwise.concatenation(layer, list(gains))
    raise TypeError(f"expected a sum or a concatenation, got {type(layer).__name__}")


def is_pooled(operation: Operation | None) -> bool:
    """Whether an operation is a pool that theorem 4.2 holds jointly with."""
    known = isinstance(operation, Pool) and operation.kind in ("max", "average")
    return known and pooling.has_theorem(operation)  # type: ignore[arg-type]
