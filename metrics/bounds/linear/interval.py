"""Interval arithmetic through one operation. Source: Gowal et al. 2018 (arXiv 1810.12715).

Every interval is widened by ``SLACK`` times the sum of the absolute values of the terms that it was
computed from. A sum of n terms in float64 errs by no more than n 1.1e-16 of that sum; ``SLACK``
covers n up to 90,000, more than any unit of a model that is taken reads (``supports``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metrics.bounds.operations import (
    Activation,
    Convolution,
    Dense,
    Operation,
    Pool,
    Scaling,
    Sum,
)

SLACK = 1e-11


@dataclass(frozen=True, eq=False)
class Interval:
    """What the output of a step lies between.

    Attributes:
        lower, upper: ``(N, *shape)``.
        magnitude: ``(N,)``, no less than the sum of the absolute terms of any unit.
    """

    lower: Tensor
    upper: Tensor
    magnitude: Tensor

    def within(self, lower: Tensor, upper: Tensor) -> Interval:
        """Return the intersection with another interval, both being true."""
        return replace(
            self, lower=torch.maximum(self.lower, lower), upper=torch.minimum(self.upper, upper)
        )

    def widened(self) -> Interval:
        """Return what also covers the rounding."""
        room = SLACK * self.magnitude.view(-1, *(1 for _ in self.lower.shape[1:]))
        return replace(self, lower=self.lower - room, upper=self.upper + room)

    @property
    def largest(self) -> Tensor:
        """The largest absolute value of each image ``(N,)``."""
        return torch.maximum(-self.lower, self.upper).flatten(1).amax(1)


def through(operation: Operation, inputs: Sequence[Interval], images: Tensor) -> Interval:
    """Return the interval of an operation's output.

    Args:
        operation: one that ``supports`` takes.
        inputs: those of its inputs, which may lie anywhere in theirs independently.
        images: ``(N, ...)``, for the length and kind of a constant.
    """
    lowers, uppers = [i.lower for i in inputs], [i.upper for i in inputs]
    largest = torch.stack([i.largest for i in inputs]).amax(0) if inputs else None
    if isinstance(operation, Convolution | Dense):
        assert largest is not None
        middle = operation.forward((lowers[0] + uppers[0]) / 2)
        radius = absolute(operation).forward((uppers[0] - lowers[0]) / 2)
        reach = operation.weight.abs().flatten(1).sum(1).max() * largest
        if operation.bias is not None:
            reach = reach + operation.bias.abs().max()
        return Interval(middle - radius, middle + radius, reach).widened()
    if isinstance(operation, Scaling):
        assert largest is not None
        ends = operation.forward(lowers[0]), operation.forward(uppers[0])
        reach = operation.scale.abs().max() * largest + operation.shift.abs().max()
        return Interval(torch.minimum(*ends), torch.maximum(*ends), reach).widened()
    if isinstance(operation, Sum):
        assert largest is not None
        swapped = [
            (low, high) if c >= 0 else (high, low)
            for c, low, high in zip(operation.coefficients, lowers, uppers, strict=True)
        ]
        low, high = (operation.forward(*ends) for ends in zip(*swapped, strict=True))
        reach = sum(abs(c) for c in operation.coefficients) * largest
        return Interval(low, high, reach).widened()
    if isinstance(operation, Activation):
        assert largest is not None
        values = [operation.forward(lowers[0]), operation.forward(uppers[0])]
        values.append(operation.forward(torch.zeros_like(lowers[0]).clamp(lowers[0], uppers[0])))
        low, high = torch.stack(values).aminmax(dim=0)
        found = Interval(low, high, operation.slope * largest)
        return found if operation.slope == 1 else found.widened()  # slopes 0, 1, -1 do not round
    if inputs:  # pools and what moves values never decrease
        low, high = operation.forward(*lowers), operation.forward(*uppers)
    else:
        low = high = operation.forward(images)
    found = Interval(low, high, torch.maximum(-low, high).flatten(1).amax(1))
    return found.widened() if isinstance(operation, Pool) and operation.affine else found


def absolute(operation: Convolution | Dense) -> Convolution | Dense:
    """Return it with the absolute weights, and without bias."""
    return replace(operation, weight=operation.weight.abs(), bias=None)
