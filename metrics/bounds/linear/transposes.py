"""Affine operations backwards: a linear function of the output as one of the inputs.

Rows a over an output W x + b are the rows a W over the input, plus the constant a b.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from metrics.bounds.linear.rows import Rows, gathered, settled, whole
from metrics.bounds.operations import (
    Concatenation,
    Constant,
    Convolution,
    Dense,
    Operation,
    Scaling,
    Sum,
)

Shape = tuple[int, ...]

MATRIX = 2_000_000  # entries of a convolution kept as a matrix, at most
DENSER = 16  # how many times the multiplications a matrix may cost: it is that much faster


class Transposes:
    """Takes rows back through affine operations; keeps the matrices of small convolutions."""

    def __init__(self) -> None:
        self._matrices: dict[tuple[Operation, Shape, bool], Tensor] = {}

    def back(
        self, operation: Operation, rows: Rows, shape: Shape, sources: Sequence[Shape]
    ) -> tuple[list[Rows], Tensor | None]:
        """Return rows over each input of shapes ``sources``, and their constants ``(R,)``.

        Args:
            operation: an affine one.
            rows: over its output, of ``shape``.
            shape: without the batch, as are ``sources``.
            sources: shapes of the inputs.
        """
        if isinstance(operation, Convolution):
            constant = None
            if operation.bias is not None:
                constant = rows.values.sum((2, 3)) @ operation.bias.to(rows.values)
            return [settled(self._convolution(operation, rows, sources[0]), sources[0])], constant
        if isinstance(operation, Scaling):
            return _scaling(operation, rows, shape)
        if isinstance(operation, Sum):
            made = [rows.over(c * rows.values, rows.corner) for c in operation.coefficients]
            return made, None
        if isinstance(operation, Concatenation) and operation.axis == 1:
            parts = rows.values.split([s[0] for s in sources], 1)
            return [rows.over(part, rows.corner) for part in parts], None
        if isinstance(operation, Constant):
            value = operation.value.to(rows.values).expand(1, *shape)
            constant = (rows.values * gathered(value, rows)).flatten(1).sum(1)
            return [], constant
        rows = whole(rows, shape)
        if isinstance(operation, Dense):
            constant = None
            if operation.bias is not None:
                constant = (rows.values * operation.bias.to(rows.values)).flatten(1).sum(1)
            return [rows.over(rows.values @ operation.weight.to(rows.values))], constant
        return _differentiated(operation, rows, sources)

    def _convolution(self, operation: Convolution, rows: Rows, source: Shape) -> Rows:
        corner = rows.corner
        stride, padding = operation.stride, operation.padding
        if corner is not None:
            steps = torch.tensor(stride, device=corner.device)
            corner = corner * steps - torch.tensor(padding, device=corner.device)
        out = tuple(rows.values.shape[1:])
        into = source
        if corner is not None:
            into = (source[0], *_reach(operation, out))
        size, area = math.prod(out) * math.prod(into), math.prod(operation.weight.shape[2:])
        denser = into[1] * into[2] * operation.groups / area
        if size > MATRIX or denser > DENSER:
            return rows.over(_transposed(operation, rows.values, source, corner), corner)
        key = (operation, out, corner is None)
        if key not in self._matrices:
            unit = torch.eye(math.prod(out), dtype=torch.float64, device=rows.values.device)
            full = _transposed(operation, unit.view(-1, *out), source, corner)
            self._matrices[key] = full.flatten(1)
        values = rows.values.flatten(1) @ self._matrices[key]
        return rows.over(values.view(-1, *into), corner)


def _reach(operation: Convolution, out: Shape) -> tuple[int, int]:
    """Return the height and width of the window that a window of outputs reads."""
    kernel = operation.weight.shape[2:]
    sides = [
        (out[1 + a] - 1) * operation.stride[a] + operation.dilation[a] * (kernel[a] - 1) + 1
        for a in (0, 1)
    ]
    return sides[0], sides[1]


def _transposed(
    operation: Convolution, values: Tensor, source: Shape, corner: Tensor | None
) -> Tensor:
    """Return the transposed convolution; without ``corner`` cut to the map, else the window."""
    padding, more = (0, 0), (0, 0)
    if corner is None:
        reach = _reach(operation, tuple(values.shape[1:]))
        padding = operation.padding
        more = (
            source[1] + 2 * padding[0] - reach[0],
            source[2] + 2 * padding[1] - reach[1],
        )
    # torch adds rows at the end only where they are fewer than the stride; so we add them here.
    found = functional.conv_transpose2d(
        values,
        operation.weight.to(values),
        None,
        operation.stride,
        0,
        0,
        operation.groups,
        operation.dilation,
    )
    if corner is not None:
        return found
    found = functional.pad(found, (0, more[1], 0, more[0]))
    return found[
        :, :, padding[0] : padding[0] + source[1], padding[1] : padding[1] + source[2]
    ].contiguous()


def _scaling(operation: Scaling, rows: Rows, shape: Shape) -> tuple[list[Rows], Tensor | None]:
    scale, shift = (
        c.to(rows.values) if _by_channel(c) else gathered(_over(c, rows, shape), rows)
        for c in (operation.scale, operation.shift)
    )
    constant = None
    if bool((operation.shift != 0).any()):
        constant = (rows.values * shift).flatten(1).sum(1)
    return [rows.over(rows.values * scale, rows.corner)], constant


def _by_channel(constant: Tensor) -> bool:
    return constant.ndim == 0 or (constant.ndim >= 3 and constant.shape[-2:] == (1, 1))


def _over(constant: Tensor, rows: Rows, shape: Shape) -> Tensor:
    return constant.to(rows.values).expand(1, *shape)


def _differentiated(
    operation: Operation, rows: Rows, sources: Sequence[Shape]
) -> tuple[list[Rows], Tensor | None]:
    """Return the vector-Jacobian product of any affine operation, and what it makes of zeros."""
    with torch.enable_grad():
        inputs = [
            rows.values.new_zeros(len(rows.values), *shape).requires_grad_() for shape in sources
        ]
        output = operation.forward(*inputs)
        found = torch.autograd.grad(
            output, inputs, rows.values, create_graph=torch.is_grad_enabled()
        )
    constant = (output.detach() * rows.values).flatten(1).sum(1)
    return [rows.over(values) for values in found], constant
