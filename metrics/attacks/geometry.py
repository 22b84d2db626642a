"""Balls, spheres and cubes around images: projections and uniform draws."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

NORMS = ("linf", "l2")


class Randomness:
    """Random numbers for a batch of images, drawn for the whole batch whatever is left of it.

    So an image's numbers do not depend on which others have been dropped.

    Args:
        batch: ``(N, C, H, W)``, gives the size, type and device.
        generator: draws on its own device; None is torch's global one.
    """

    def __init__(self, batch: Tensor, generator: torch.Generator | None) -> None:
        self._like, self._generator = batch, generator
        self.rows = torch.arange(len(batch), device=batch.device)

    def uniform(self, *shape: int) -> Tensor:
        """Return ``(rows, *shape)`` draws from U[0, 1)."""
        return self._draw(torch.rand, shape)

    def normal(self, *shape: int) -> Tensor:
        """Return ``(rows, *shape)`` draws from N(0, 1)."""
        return self._draw(torch.randn, shape)

    def _draw(self, make: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        like = self._like
        device = like.device if self._generator is None else self._generator.device
        size = (len(like), *shape)
        drawn = make(size, generator=self._generator, device=device, dtype=like.dtype)
        drawn = drawn.to(like.device)
        return drawn if len(self.rows) == len(like) else drawn[self.rows]


def project(delta: Tensor, norm: str, epsilon: float) -> Tensor:
    """Return ``delta`` moved to the nearest point of the ball of radius ``epsilon``."""
    if norm == "linf":
        return delta.clamp(-epsilon, epsilon)
    length = delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return torch.where(length > epsilon, delta * (epsilon / length.clamp_min(1e-30)), delta)


def length_of(delta: Tensor, norm: str) -> Tensor:
    """Return ``(N,)``: the length of each sample of ``delta`` in ``norm``."""
    flat = delta.flatten(1)
    return flat.abs().amax(dim=1) if norm == "linf" else flat.norm(dim=1)


def unit(v: Tensor) -> Tensor:
    """Return each sample of ``v`` at Euclidean length 1; a zero one stays zero.

    Divided by the largest entry first: squares of entries below 1e-19 are lost in float32.
    """
    largest = v.flatten(1).abs().amax(dim=1)
    scaled = v / column(torch.where(largest > 0, largest, 1))
    length = scaled.flatten(1).norm(dim=1)
    return scaled / column(torch.where(length > 0, length, 1))


def in_ball(shape: tuple[int, ...], norm: str, random: Randomness) -> Tensor:
    """Return uniform draws from the unit ball, one for each image of ``shape`` ``(C, H, W)``.

    The L2 draw is direction * U^(1/n), which is uniform in volume.
    """
    if norm == "linf":
        return 2 * random.uniform(*shape) - 1
    direction = unit(random.normal(*shape))
    return direction * random.uniform(1, 1, 1) ** (1 / direction[0].numel())


def column(v: Tensor) -> Tensor:
    """Return ``(N,)`` values shaped to broadcast against images."""
    return v.view(-1, 1, 1, 1)


def check_norm(norm: str) -> None:
    """Raise ValueError for an unknown norm."""
    if norm not in NORMS:
        raise ValueError(f"norm: expected one of {list(NORMS)}, got {norm!r}")
