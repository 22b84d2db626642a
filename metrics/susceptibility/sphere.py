"""The paper's length |v| = sqrt(mean(v_i²)), and the sphere of all v with |v| = r.

Squares under- and overflow long before lengths do: samples are scaled by a power of two first,
which rounds nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metrics.precision import widened

EXPONENTS = 126  # 2^126 and 2^-126 are float32
EXPONENTS_HALF = 10  # float16 ends at 2^16, and a gradient grows on its way back


def rms(v: Tensor) -> Tensor:
    """Return |v| = sqrt(mean(v²)) of each sample, shaped to broadcast against ``v``.

    In float32 at least; of a sample with an infinity it is infinite, with a NaN it is NaN.
    """
    flat = widened(v).reshape(len(v), -1)
    down, up = scales(flat)
    length = (flat * down).square().mean(dim=1, keepdim=True).sqrt() * up
    return length.view(-1, *[1] * (v.ndim - 1))


def on_sphere(v: Tensor, radius: Tensor | float) -> Tensor:
    """Return each sample of ``v`` scaled to |v| = ``radius``, in float32 at least; 0 stays 0."""
    return widened(v) * (radius / nonzero(rms(v)))


def scales(flat: Tensor, most: int = EXPONENTS) -> tuple[Tensor, Tensor]:
    """Return ``(N, 1)`` twice: a power of two that brings each sample near 1, and its inverse.

    None is above 2^``most``.
    """
    largest = flat.detach().abs().amax(dim=1, keepdim=True)
    exponent = torch.frexp(torch.where(largest.isfinite(), largest, 1)).exponent
    exponent = exponent.clamp(-most, EXPONENTS)
    one = torch.ones_like(largest)
    return torch.ldexp(one, -exponent), torch.ldexp(one, exponent)


def nonzero(length: Tensor) -> Tensor:
    """Return ``length`` with 1 for 0, which is not divided by."""
    return torch.where(length == 0, 1, length)
