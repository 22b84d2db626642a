"""The operations that a model is read into, each a value with its parameters in float64.

:meth:`Operation.forward` computes it on a batch; what is known of its gain is in
:mod:`metrics.bounds.layers`. Shapes are those of one image, without the batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

Windows = tuple[tuple[int, ...], ...]
"""Along one axis: for each output, the places of the input that it reads; padding left out."""


class Unknown(ValueError):
    """An operation whose gain is not known."""


class Operation(ABC):
    """What one step of a model does.

    Attributes:
        affine: whether it is, in all of its inputs together.
        nonnegative: whether its outputs are, whatever comes in.
        keeps_sign: whether nonnegative inputs give nonnegative outputs.
    """

    affine: ClassVar[bool] = False
    nonnegative: bool = False
    keeps_sign: bool = False

    @abstractmethod
    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the output ``(N, ...)`` for inputs ``(N, ...)``."""


@dataclass(frozen=True, eq=False)
class Convolution(Operation):
    """A convolution over zero-padded images.

    Attributes:
        weight: ``(outputs, inputs / groups, height, width)``.
        bias: ``(outputs,)`` or None.
        stride, padding, dilation: along height and width; the padding is on both sides.
        groups: of channels.
    """

    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    affine: ClassVar[bool] = True

    def forward(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        weight, bias = self.weight.to(x), None if self.bias is None else self.bias.to(x)
        return functional.conv2d(
            x, weight, bias, self.stride, self.padding, self.dilation, self.groups
        )


@dataclass(frozen=True, eq=False)
class Dense(Operation):
    """A fully connected layer over the last axis; ``weight`` is ``(outputs, inputs)``."""

    weight: Tensor
    bias: Tensor | None
    affine: ClassVar[bool] = True

    def forward(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        return functional.linear(
            x, self.weight.to(x), None if self.bias is None else self.bias.to(x)
        )


@dataclass(frozen=True, eq=False)
class Scaling(Operation):
    """Each value times its own scale, plus its own shift: batch norm, normalisation, constants.

    Attributes:
        scale, shift: broadcast against ``(N, ...)``.
    """

    scale: Tensor
    shift: Tensor
    affine: ClassVar[bool] = True

    def forward(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        return x * self.scale.to(x) + self.shift.to(x)


@dataclass(frozen=True, eq=False)
class Activation(Operation):
    """A function of each value.

    Attributes:
        name: as torch calls it.
        function: the function.
        slope: the largest absolute value of its derivative, its Lipschitz constant.
        curvature: the largest absolute value of its second derivative; None where it has none.
        derivative: the first; None where ``curvature`` is.
        nonnegative, keeps_sign: as in :class:`Operation`.
    """

    name: str
    function: Callable[[Tensor], Tensor]
    slope: float
    curvature: float | None = None
    derivative: Callable[[Tensor], Tensor] | None = None
    nonnegative: bool = False
    keeps_sign: bool = True

    def forward(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        return self.function(x)


@dataclass(frozen=True, eq=False)
class Pool(Operation):
    """A pool: one value for each window of each channel.

    Attributes:
        kind: ``max``, ``average`` or ``power``, the L_p norm.
        rows, columns: the windows along height and width.
        function: the pool as torch computes it.
        divisors: ``(rows,)`` and ``(columns,)``: an average is the sum over their product.
        power: p of the L_p norm.
        kernel: the sides of a window, padding counted in.
    """

    kind: str
    rows: Windows
    columns: Windows
    function: Callable[[Tensor], Tensor]
    divisors: tuple[Tensor, Tensor] | None = None
    power: float = 2.0
    kernel: tuple[int, int] = (1, 1)
    keeps_sign: bool = True

    @property
    def affine(self) -> bool:  # type: ignore[override]
        """An average is."""
        return self.kind == "average"

    @property
    def nonnegative(self) -> bool:  # type: ignore[override]
        """A norm is."""
        return self.kind == "power"

    def forward(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        return self.function(x)


@dataclass(frozen=True, eq=False)
class Sum(Operation):
    """The sum of its inputs, each times its own coefficient."""

    coefficients: tuple[float, ...]
    affine: ClassVar[bool] = True

    @property
    def keeps_sign(self) -> bool:  # type: ignore[override]
        """Where no coefficient is negative."""
        return min(self.coefficients) >= 0

    def forward(self, *inputs: Tensor) -> Tensor:
        terms = [c * x for c, x in zip(self.coefficients, inputs, strict=True)]
        return sum(terms[1:], terms[0])


@dataclass(frozen=True, eq=False)
class Concatenation(Operation):
    """Its inputs side by side along ``axis``, that of the batch counted."""

    axis: int
    affine: ClassVar[bool] = True
    keeps_sign: bool = True

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, self.axis)


@dataclass(frozen=True, eq=False)
class Constant(Operation):
    """The same values for every image; :meth:`forward` takes any batch, for its length."""

    value: Tensor
    affine: ClassVar[bool] = True

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.value.to(inputs[0]).expand(len(inputs[0]), *self.value.shape)


@dataclass(frozen=True, eq=False)
class Rearrangement(Operation):
    """Values moved, repeated, left out, or set among constants: flatten, slice, pad, dropout.

    Attributes:
        name: as torch calls it.
        function: what is done.
        copies: how often a value occurs in the output, at most.
    """

    name: str
    function: Callable[[Tensor], Tensor]
    copies: int = 1
    affine: ClassVar[bool] = True
    keeps_sign: bool = False

    def forward(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        return self.function(x)


@dataclass(frozen=True, eq=False)
class Ranking(Operation):
    """What leaves the order of the logits as it is: softmax, log-softmax."""

    name: str
    function: Callable[[Tensor], Tensor]

    def forward(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        return self.function(x)


def windows(
    size: int, kernel: int, stride: int, padding: int, dilation: int, outputs: int
) -> Windows:
    """Return what the ``outputs`` windows along an axis of ``size`` read."""
    starts = [stride * i - padding for i in range(outputs)]
    every = [[start + dilation * k for k in range(kernel)] for start in starts]
    return tuple(tuple(place for place in places if 0 <= place < size) for places in every)


def adaptive_windows(size: int, outputs: int) -> Windows:
    """Return what adaptive pools read: from floor(i size / outputs) to the next's, rounded up."""
    return tuple(
        tuple(range(i * size // outputs, -(-(i + 1) * size // outputs))) for i in range(outputs)
    )


def coverage(read: Windows) -> int:
    """Return how many windows a place lies in, at most."""
    counts: dict[int, int] = {}
    for places in read:
        for place in places:
            counts[place] = counts.get(place, 0) + 1
    return max(counts.values(), default=0)
