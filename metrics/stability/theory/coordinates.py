"""Uniform draws from the unit ball: whole vectors, and single coordinates at no cost in n."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from metrics.stability.theory.caps import FloatArray
from metrics.stability.theory.domain import check_dimension


def coordinates(n: int, shape: tuple[int, ...], generator: np.random.Generator) -> FloatArray:
    """Return independent draws of u_1, u uniform in the unit ball of R^n.

    u is g / |g| W^(1/n), g normal and W uniform in [0, 1]. Of g only g_1 is drawn, and of the
    others the sum of squares, which is chi-squared with n - 1 degrees of freedom. So the draws owe
    nothing to the beta function that they are compared with.

    Raises:
        ValueError: a dimension below 1.
    """
    check_dimension(n)
    first = generator.standard_normal(shape)
    others = generator.chisquare(n - 1, shape) if n > 1 else 0.0
    length = np.exp(-generator.standard_exponential(shape) / n)  # -ln W is exponential
    drawn: FloatArray = first / np.sqrt(np.square(first) + others) * length
    return drawn


def vectors(n: int, count: int, generator: torch.Generator) -> Tensor:
    """Return ``(count, n)`` float64 draws, uniform in the unit ball of R^n."""
    device = generator.device
    normal = torch.randn(count, n, generator=generator, dtype=torch.float64, device=device)
    share = torch.rand(count, 1, generator=generator, dtype=torch.float64, device=device)
    drawn: Tensor = normal / normal.norm(dim=1, keepdim=True) * share ** (1 / n)
    return drawn
