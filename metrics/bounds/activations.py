"""Functions of one value: how steep they are, and how curved.

The numbers are suprema over the line, rounded up in the last digit where they are not exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from metrics.bounds.operations import Activation, Unknown

SIGMOID_CURVATURE = 1 / (6 * math.sqrt(3))
LOWEST_THRESHOLD = 20.0  # of torch's softplus: the two are 2e-9 / beta apart there
TANH_CURVATURE = 4 / (3 * math.sqrt(3))


def leaky_relu(slope: float = 0.01) -> Activation:
    """ReLU with a slope below 0."""
    function = partial(functional.leaky_relu, negative_slope=slope)
    return Activation("leaky_relu", function, max(1.0, abs(slope)), nonnegative=slope <= 0)


def clamp(low: float | None = None, high: float | None = None) -> Activation:
    """Hard limits: ``clamp``, ``hardtanh``, ReLU6."""
    low, high = -math.inf if low is None else low, math.inf if high is None else high
    function = partial(torch.clamp, min=low, max=high)
    return Activation("clamp", function, 1.0, nonnegative=low >= 0, keeps_sign=high >= 0)


def hardtanh(low: float = -1.0, high: float = 1.0) -> Activation:
    """The identity between two limits."""
    return clamp(low, high)


def sigmoid() -> Activation:
    """The logistic function."""
    return Activation(
        "sigmoid",
        torch.sigmoid,
        0.25,
        curvature=SIGMOID_CURVATURE,
        derivative=lambda z: z.sigmoid() * (-z).sigmoid(),
        nonnegative=True,
    )


def tanh() -> Activation:
    """The hyperbolic tangent."""
    return Activation(
        "tanh",
        torch.tanh,
        1.0,
        curvature=TANH_CURVATURE,
        derivative=lambda z: 4 * (2 * z).sigmoid() * (-2 * z).sigmoid(),
    )


def softplus(beta: float = 1.0, threshold: float = 20.0) -> Activation:
    """log(1 + exp(beta z)) / beta, also where torch takes z for it, above a threshold.

    Raises:
        Unknown: a threshold so low that the two are different functions.
    """
    if threshold < LOWEST_THRESHOLD:
        raise Unknown(f"softplus with a threshold of {threshold:g}")

    def function(z: Tensor) -> Tensor:
        return functional.softplus(z, beta, 2 * LOWEST_THRESHOLD)

    return Activation(
        "softplus",
        function,
        1.0,
        curvature=beta / 4,
        derivative=lambda z: (beta * z).sigmoid(),
        nonnegative=True,
    )


def elu(alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Activation:
    """ELU; SELU and CELU are scaled ones."""
    steepest = abs(scale) * max(1.0, abs(alpha * input_scale))

    def function(z: Tensor) -> Tensor:
        below = alpha * torch.expm1((input_scale * z).clamp_max(0))
        return scale * torch.where(z > 0, z, below)

    return Activation("elu", function, steepest, keeps_sign=scale >= 0)


def gelu(approximate: str = "none") -> Activation:
    """GELU, exact or with its tanh."""
    return Activation("gelu", partial(functional.gelu, approximate=approximate), 1.1291)


def fixed(
    name: str,
    function: Callable[[Tensor], Tensor],
    slope: float,
    *,
    nonnegative: bool = False,
    keeps_sign: bool = True,
) -> Callable[[], Activation]:
    """Return a maker of an activation without settings."""
    return lambda: Activation(name, function, slope, nonnegative=nonnegative, keeps_sign=keeps_sign)


ACTIVATIONS: dict[str, Callable[..., Activation]] = {
    "relu": fixed("relu", torch.relu, 1.0, nonnegative=True),
    "leaky_relu": leaky_relu,
    "relu6": partial(clamp, 0.0, 6.0),
    "hardtanh": hardtanh,
    "clamp": clamp,
    "clamp_min": clamp,
    "clamp_max": partial(clamp, None),
    "sigmoid": sigmoid,
    "tanh": tanh,
    "softplus": softplus,
    "elu": elu,
    "gelu": gelu,
    "abs": fixed("abs", torch.abs, 1.0, nonnegative=True),
    "silu": fixed("silu", functional.silu, 1.0999),
    "mish": fixed("mish", functional.mish, 1.0885),
    "selu": fixed("selu", functional.selu, 1.7581),
    "celu": lambda alpha=1.0: elu(alpha, 1.0, 1.0 / alpha),
    "hardswish": fixed("hardswish", functional.hardswish, 1.5),
    "hardsigmoid": fixed("hardsigmoid", functional.hardsigmoid, 0.16667, nonnegative=True),
    "log_sigmoid": fixed("log_sigmoid", functional.logsigmoid, 1.0, keeps_sign=False),
}
"""torch's name -> what makes the activation of its arguments behind the tensor."""
