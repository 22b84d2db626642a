"""Differences of independent random logits: the null model of Cubuk et al. 2017.

Of N independent logits with density f and distribution function F, the largest leads the j-th
largest by Δ_1j, whose law follows from the joint one of two order statistics (their appendix,
equations 17 to 22; David and Nagaraja 2003, *Order Statistics*, section 2.2):

    p_j(Δ)       = N! / ((j-2)! (N-j)!) ∫ f(z) f(z+Δ) [F(z+Δ) - F(z)]^(j-2) F(z)^(N-j) dz
    P(Δ_1j <= Δ) = N! / ((j-1)! (N-j)!) ∫ f(z)        [F(z+Δ) - F(z)]^(j-1) F(z)^(N-j) dz

so that p_j(Δ) = c_j Δ^(j-2) at small Δ, whatever f is: Δ_12 has a finite density at 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from metrics.attacks.geometry import own_generator
from metrics.checks import check_integers

LAWS = ("uniform", "normal", "exponential")
CHUNK = 2**21  # logits drawn, or nodes of an integral looked at, together
REACH = 12.0  # a normal logit beyond has probability 1e-32
FURTHEST = 100.0  # apart they never are; infinity less infinity would be NaN
PANELS, NODES = 64, 20  # of the Gauss-Legendre rule on [-REACH, REACH]
NEAR, FEW = 0.05, 6  # below NEAR, F(z+Δ) - F(z) is integrated too, by so many nodes


@dataclass(frozen=True)
class RandomLogits:
    """Independent logits of one law.

    Attributes:
        classes: N, at least 2.
        law: ``uniform`` on [0, 1], ``normal`` (standard) or ``exponential`` (rate 1).

    Raises:
        ValueError: fewer than 2 classes, or an unknown law.
    """

    classes: int = 10
    law: str = "uniform"

    def __post_init__(self) -> None:
        check_integers(classes=self.classes)
        if self.classes < 2:
            raise ValueError(f"classes: expected >= 2, got {self.classes}")
        if self.law not in LAWS:
            raise ValueError(f"law: expected one of {list(LAWS)}, got {self.law!r}")

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Return ``(count, classes - 1)`` float64 draws of Δ_12 ... Δ_1N, ascending.

        Args:
            count: how many sets of logits.
            generator: draws on its own device; None is one that torch's global one seeds.

        Raises:
            ValueError: a count that is negative or no integer.
        """
        check_integers(count=count)
        if count < 0:
            raise ValueError(f"count: expected >= 0, got {count}")
        generator = own_generator(generator, torch.device("cpu"))
        found = torch.empty(count, self.classes - 1, dtype=torch.float64, device=generator.device)
        for part in found.split(max(1, CHUNK // self.classes)):
            logits = self._draw(len(part), generator)
            ranked = logits.sort(dim=1, descending=True).values
            torch.sub(ranked[:, :1], ranked[:, 1:], out=part)
        return found

    def density(self, j: int, delta: Tensor | float) -> Tensor:
        """Return p_j at ``delta``, float64 of its shape: 0 where it is negative, NaN of NaN.

        Raises:
            ValueError: j outside 2 ... classes.
        """
        n = self._check(j)
        at = _at(delta)
        if self.law == "uniform":  # Beta(j-1, N-j+2)
            log = _log_ratio(n, j - 2, n - j + 1)
            inside = at.clamp(0, 1)
            power = torch.xlogy(j - 2, inside) + torch.special.xlog1py(n - j + 1, -inside)
            found = (log + power).exp().masked_fill(at > 1, 0)
        elif self.law == "exponential":  # the largest of j-1 of rate 1
            inside = at.clamp_min(0)
            found = (j - 1) * (-inside).exp() * (-(-inside).expm1()) ** (j - 2)
        else:

            def integrand(z: Tensor, d: Tensor) -> Tensor:
                between = torch.xlogy(j - 2, _normal_between(z, d))
                return _log_normal(z) + _log_normal(z + d) + between + _log_below(z, n - j)

            found = _integral(integrand, at, _log_ratio(n, j - 2, n - j))
        zeroed: Tensor = found.masked_fill(at < 0, 0)
        return zeroed

    def cumulative(self, j: int, delta: Tensor | float) -> Tensor:
        """Return P(Δ_1j <= ``delta``), float64 of its shape; NaN of NaN.

        Raises:
            ValueError: j outside 2 ... classes.
        """
        n = self._check(j)
        at = _at(delta)
        if self.law == "uniform":  # j-1 or more of N uniform numbers lie below delta
            inside = at.clamp(0, 1)
            found = torch.zeros_like(at)
            for i in range(j - 1, n + 1):
                power = torch.xlogy(i, inside) + torch.special.xlog1py(n - i, -inside)
                found += (_log_ratio(n, i, n - i) + power).exp()
        elif self.law == "exponential":
            found = (-(-at.clamp_min(0)).expm1()) ** (j - 1)
        else:

            def integrand(z: Tensor, d: Tensor) -> Tensor:
                between = torch.xlogy(j - 1, _normal_between(z, d))
                return _log_normal(z) + between + _log_below(z, n - j)

            found = _integral(integrand, at, _log_ratio(n, j - 1, n - j))
        return found.masked_fill(at < 0, 0).clamp_max(1)

    def slope(self, j: int) -> float:
        """Return c_j of p_j(Δ) = c_j Δ^(j-2) as Δ → 0: N!/((j-2)!(N-j)!) ∫ f^j F^(N-j).

        Raises:
            ValueError: j outside 2 ... classes.
        """
        n = self._check(j)
        if self.law == "uniform":
            return math.exp(_log_ratio(n, j - 2, n - j + 1))
        if self.law == "exponential":
            return float(j - 1)

        def integrand(z: Tensor, d: Tensor) -> Tensor:
            return (j * _log_normal(z) + _log_below(z, n - j)).expand(len(d), -1)

        return float(_integral(integrand, _at(0.0), _log_ratio(n, j - 2, n - j)))

    def _check(self, j: int) -> int:
        check_integers(j=j)
        if not 2 <= j <= self.classes:
            raise ValueError(f"j: expected a rank 2 ... {self.classes}, got {j}")
        return self.classes

    def _draw(self, count: int, generator: torch.Generator) -> Tensor:
        shape, device = (count, self.classes), generator.device
        if self.law == "normal":
            return torch.randn(shape, generator=generator, dtype=torch.float64, device=device)
        if self.law == "uniform":
            return torch.rand(shape, generator=generator, dtype=torch.float64, device=device)
        return torch.empty(shape, dtype=torch.float64, device=device).exponential_(
            generator=generator
        )


def _at(delta: Tensor | float) -> Tensor:
    return torch.as_tensor(delta, dtype=torch.float64)


def _log_ratio(n: int, *others: int) -> float:
    """Return ln(n! / (k! l! ...))."""
    return math.lgamma(n + 1) - sum(math.lgamma(k + 1) for k in others)


def _integral(
    integrand: Callable[[Tensor, Tensor], Tensor], at: Tensor, log_factor: float
) -> Tensor:
    """Return e^log_factor ∫ e^integrand(z, Δ) dz for each Δ of ``at``."""
    z, weight = _rule(PANELS, NODES, -REACH, REACH, at.device)
    flat = at.reshape(-1, 1)
    found = [
        (integrand(z, d) + log_factor).exp() @ weight for d in flat.split(max(1, CHUNK // len(z)))
    ]
    return torch.cat(found).view(at.shape)


def _rule(
    panels: int, nodes: int, low: float, high: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return points and weights of the Gauss-Legendre rule on equal panels of [low, high]."""
    points, weights = np.polynomial.legendre.leggauss(nodes)
    half = (high - low) / (2 * panels)
    middles = low + half * (2 * np.arange(panels) + 1)
    z = (middles[:, None] + half * points).ravel()
    return (
        torch.from_numpy(z).to(device),
        torch.from_numpy(np.tile(half * weights, panels)).to(device),
    )


def _log_normal(z: Tensor) -> Tensor:
    return -z.square() / 2 - math.log(2 * math.pi) / 2


def _log_below(z: Tensor, count: int) -> Tensor:
    """Return ln F(z)^count."""
    log: Tensor = count * torch.special.log_ndtr(z)
    return log


def _normal_between(z: Tensor, d: Tensor) -> Tensor:
    """Return F(z + d) - F(z) of the normal law, ``(deltas, points)``, to a relative accuracy."""
    d = d.clamp(0, FURTHEST)
    lower = torch.where(z > 0, -z - d, z)  # the mirror image, where 1 - F is the accurate one
    far: Tensor = torch.special.ndtr(lower + d) - torch.special.ndtr(lower)
    near = d < NEAR
    if near.any():
        t, weight = _rule(1, FEW, 0.0, 1.0, z.device)
        rows = near.squeeze(1).nonzero().squeeze(1)
        steps = d[rows]
        far[rows] = steps * sum(
            w * _log_normal(z + s * steps).exp() for s, w in zip(t, weight, strict=True)
        )
    return far
