"""The paper's length |v| = sqrt(mean(v_i²)), and the sphere of all v with |v| = r."""

from __future__ import annotations

from torch import Tensor

SMALLEST = 1e-30  # a length of 0 is not divided by


def rms(v: Tensor) -> Tensor:
    """Return |v| = sqrt(mean(v²)) of each sample, shaped to broadcast against ``v``."""
    return v.reshape(len(v), -1).square().mean(dim=1).sqrt().view(-1, *[1] * (v.ndim - 1))


def on_sphere(v: Tensor, radius: Tensor | float) -> Tensor:
    """Return each sample of ``v`` scaled to |v| = ``radius``; what is 0 stays 0."""
    return v * (radius / rms(v).clamp_min(SMALLEST))
