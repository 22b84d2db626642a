"""Ψ̂ from many ψ: their geometric mean, its interval, and whether it saturates."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SATURATION = 1.5  # Ψ̂ of neighbouring radii may differ by this factor


BOOTSTRAP_DRAWS = 1000


def geometric_mean(psi: Tensor) -> Tensor:
    """Return exp(mean of ln ψ) over the last axis, in float64; a ψ of 0 counts as the smallest."""
    return psi.double().clamp_min(torch.finfo(torch.float64).tiny).log().mean(dim=-1).exp()


def bootstrap(psi: Tensor) -> tuple[float, float]:
    """Return the 95 % interval of Ψ̂ over the inputs of ``(radii, N)``; its draws are fixed."""
    logs = psi.double().clamp_min(torch.finfo(torch.float64).tiny).log().mean(dim=0)
    n = len(logs)
    fixed = torch.Generator(device="cpu").manual_seed(0)
    draws = torch.randint(n, (BOOTSTRAP_DRAWS, n), generator=fixed, device="cpu")
    means = logs.cpu()[draws].mean(dim=1)
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=means.dtype)).tolist()
    return math.exp(low), math.exp(high)


def saturates(per_radius: Tensor) -> bool:
    """Return whether Ψ̂ of two neighbouring radii differs by more than 1.5 times."""
    steps = per_radius.log().diff().abs()
    return not bool((steps <= math.log(SATURATION)).all())  # NaN counts as saturated
