"""The smallest step in the box that a linear function asks for; exact, without a pass.

For g in the step's own direction the length that is needed solves h(s) = b, where
h(s) = sum_i |g_i| min(s w_i, room_i) is what the clipped step of strength s gains: concave and
piecewise linear, so that Newton's method from 0 comes to the root from below, in a few steps.
In L infinity w_i = 1, in L2 w_i = |g_i| (the conditions of Karush, Kuhn and Tucker; Croce and Hein
2020, *Minimally distorted adversarial examples with a fast adaptive boundary attack*, section 3.1,
sort the breakpoints instead).
"""

from __future__ import annotations

import torch
from torch import Tensor

from metrics.attacks.geometry import column

STEPS = 30  # of Newton's method, at most; fewer than ten as a rule


def smallest_step(x: Tensor, gradient: Tensor, gain: Tensor, norm: str) -> Tensor:
    """Return the smallest delta, float64, with x + delta in the box and gradient . delta >= gain.

    Where the box does not hold so much, it is the corner that gains most.

    Args:
        x: ``(N, C, H, W)`` in [0, 1].
        gradient: the same shape, finite.
        gain: ``(N,)``; where it is 0 or less, so is delta.
        norm: ``linf`` or ``l2``.
    """
    slope, wide = gradient.double(), x.double()
    largest = slope.flatten(1).abs().amax(dim=1)
    scale = torch.where(largest > 0, largest, 1)
    slope, gain = slope / column(scale), gain.double() / scale
    room = torch.where(slope > 0, 1 - wide, torch.where(slope < 0, wide, 0)).flatten(1)
    size = slope.abs().flatten(1)
    weight = torch.ones_like(size) if norm == "linf" else size
    strength = torch.zeros_like(gain)
    for _ in range(STEPS):
        asked = weight * strength[:, None]
        free = asked < room
        have = (size * torch.where(free, asked, room)).sum(dim=1)
        rate = (size * weight * free).sum(dim=1)
        short = (have < gain * (1 - 1e-12)) & (rate > 0)
        if not short.any():
            break
        step = (gain - have) / torch.where(rate > 0, rate, 1)
        strength = torch.where(short, strength + step, strength)
    length = torch.minimum(weight * strength[:, None], room).view_as(slope)
    return length * slope.sign()
