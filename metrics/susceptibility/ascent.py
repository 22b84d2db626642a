"""The attack of the Ψ paper: a few steps of gradient ascent on |h(x + δ) - h(x)|, |δ| = r.

The paper says "learning rate 0.01" and no more. The gradient of a length is about ψ/N in size, N
the number of pixels, so the step as printed (``plain``) never leaves its random start; the step
rules below are the readings that do. The start is random, because at δ = 0 the length has no
gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor, nn

from metrics.answers import gradient_of, outputs_of
from metrics.checks import check_outputs
from metrics.precision import widened
from metrics.susceptibility.sphere import (
    EXPONENTS,
    EXPONENTS_HALF,
    nonzero,
    on_sphere,
    rms,
    scales,
)

STEPS = ("rel", "norm", "sign", "adam", "plain")
START = ("gaussian", "sign")

Move = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Gradient ``(N, ...)``, radius and the gradient's scale, both shaped to broadcast -> what is added
to δ."""


class AscentSettings(TypedDict, total=False):
    """The settings of :class:`Ascent`, as functions take them and pass them on."""

    steps: int
    step: str
    learning_rate: float
    restarts: int
    start: str


@dataclass(frozen=True, kw_only=True)
class Ascent:
    """How δ is sought on the sphere |δ| = r.

    Args:
        steps: gradient steps; 0 gives the random baseline.
        step: what is added to δ before it is put back on the sphere, g the gradient:
            ``rel`` r g/|g|, in proportion to the radius; ``norm`` learning_rate g/|g|;
            ``sign`` learning_rate sign(g); ``adam`` Adam(learning_rate); ``plain``
            learning_rate g, as printed.
        learning_rate: of every rule but ``rel``.
        restarts: random starts, of which the one with the largest ψ counts.
        start: ``gaussian``, uniform on the sphere, or ``sign``, a random corner ±r.

    Raises:
        ValueError: a value out of range or an unknown name.
    """

    steps: int = 5
    step: str = "rel"
    learning_rate: float = 0.01
    restarts: int = 1
    start: str = "gaussian"

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"expected steps >= 0, got {self.steps}")
        if self.restarts < 1:
            raise ValueError(f"expected restarts >= 1, got {self.restarts}")
        if self.step not in STEPS:
            raise ValueError(f"step: expected one of {list(STEPS)}, got {self.step!r}")
        if self.start not in START:
            raise ValueError(f"start: expected one of {list(START)}, got {self.start!r}")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"expected a finite learning_rate > 0, got {self.learning_rate}")

    def directions(self, shape: torch.Size, generator: torch.Generator | None) -> Tensor:
        """Return ``(restarts, *shape)`` random directions of one input, on the generator's device.

        The default device where there is no generator.
        """
        device = None if generator is None else generator.device
        size = (self.restarts, *shape)
        noise = torch.randn(size, generator=generator, device=device, dtype=torch.float32)
        return noise.sign() if self.start == "sign" else noise

    def climb(
        self,
        model: nn.Module,
        x: Tensor,
        clean: Tensor,
        direction: Tensor,
        radius: Tensor,
        *,
        together: bool = False,
    ) -> Tensor:
        """Return δ ``(N, C, H, W)`` with |δ| = r, in float32 at least.

        Args:
            model: images to outputs ``(N, ...)``.
            x: inputs ``(N, C, H, W)``.
            clean: h(x), in any precision.
            direction: of the start.
            radius: ``(N, 1, 1, 1)``.
            together: whether an output depends on the other inputs too, so that each climbs the
                sum of all distances.
        """
        delta = on_sphere(direction, radius)
        before = widened(clean).reshape(len(x), -1)
        move = self._rule()
        for _ in range(self.steps):
            delta.requires_grad_()
            outputs = check_outputs(outputs_of(model, displaced(x, delta)), len(x))
            change = widened(outputs).reshape(len(x), -1) - before
            # Near 1, where squares neither under- nor overflow.
            most = EXPONENTS_HALF if outputs.dtype is torch.float16 else EXPONENTS
            down, up = scales(change.reshape(1, -1) if together else change, most)
            # A sum, not a mean: a mean would divide every sample's step by the batch size.
            # The clamp keeps an output that does not move from a NaN gradient: sqrt has none at 0.
            square = (change * down).square().mean(dim=1)
            distance = square.clamp_min(torch.finfo(square.dtype).tiny).sqrt().sum()
            # Where outputs are not finite there is nowhere to go: the point stays on its sphere.
            gradient = gradient_of(distance, delta).nan_to_num(0, 0, 0)
            scale = up.view(-1, *[1] * (x.ndim - 1))
            delta = on_sphere(delta.detach() + move(gradient, radius, scale), radius)
        return delta

    def _rule(self) -> Move:
        rate = self.learning_rate
        if self.step == "rel":
            return lambda g, r, _: r * g / nonzero(rms(g))
        if self.step == "norm":
            return lambda g, r, _: rate * g / nonzero(rms(g))
        if self.step == "sign":
            return lambda g, r, _: rate * g.sign()
        if self.step == "adam":
            return _adam(rate)
        return lambda g, r, scale: rate * scale * g


def displaced(x: Tensor, delta: Tensor) -> Tensor:
    """Return x + δ, in the type of ``x``: what a model sees."""
    return (x.to(delta.dtype) + delta).to(x.dtype)


def _adam(rate: float, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> Move:
    """Return the update of Adam (Kingma and Ba 2015, algorithm 1) with moments of its own.

    They are of the gradient in the scale of the first step, in float64: so ε, which is meant to be
    small, is, and the step does not depend on the scale of the outputs.
    """
    first: Tensor | float = 0.0
    second: Tensor | float = 0.0
    taken = 0
    unit: Tensor | None = None

    def move(gradient: Tensor, radius: Tensor, scale: Tensor) -> Tensor:
        nonlocal first, second, taken, unit
        taken += 1
        unit = scale if unit is None else unit
        given, gradient = gradient, gradient.double() * (scale.double() / unit.double())
        first = beta1 * first + (1 - beta1) * gradient
        second = beta2 * second + (1 - beta2) * gradient.square()
        size = (second / (1 - beta2**taken)).sqrt()
        step: Tensor = rate * (first / (1 - beta1**taken)) / (size + epsilon)
        return step.to(given.dtype)

    return move
