"""Both ends: what is proved impossible, and what an attack was seen to do.

certified lower bound <= smallest perturbation <= verified attack. Between them is what nobody
knows: an attack that found nothing proves nothing, and a bound of 0 says nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metrics.bounds.lower import LowerBounds, lower_bounds
from metrics.robustness.minimal.perturbation import Perturbations, smallest_perturbation

BUDGET = 100  # passes an image


class Contradiction(ValueError):
    """An attack below a certified bound: one of the two is wrong, and no number is to be used."""


@dataclass(frozen=True)
class Bracket:
    """The two ends of every image's smallest perturbation.

    Attributes:
        below: the certified bounds.
        above: the attacks.
        norm: that both are measured in.
    """

    below: LowerBounds
    above: Perturbations
    norm: str

    @property
    def lower(self) -> Tensor:
        """``(N,)`` float64: no perturbation shorter than this breaks the image."""
        return self.below.radius

    @property
    def upper(self) -> Tensor:
        """``(N,)`` float64: one of this length does; infinity where none was found."""
        return self.above.size

    @property
    def ratios(self) -> Tensor:
        """Upper over lower of the right images; infinity where either end says nothing."""
        right = self.upper > 0
        return (self.upper / self.lower)[right].nan_to_num(nan=torch.inf, posinf=torch.inf)

    def certified(self, epsilon: float) -> Tensor:
        """Return ``(N,)`` bool: no perturbation up to ``epsilon`` breaks the image."""
        return self.lower > epsilon

    def broken(self, epsilon: float) -> Tensor:
        """Return ``(N,)`` bool: one up to ``epsilon`` was seen to."""
        return self.upper <= epsilon

    def unknown(self, epsilon: float) -> Tensor:
        """Return ``(N,)`` bool: neither."""
        return ~(self.certified(epsilon) | self.broken(epsilon))


def bracket(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    norm: str = "linf",
    mode: str = "tight",
    linear: bool | None = None,
    budget: int = BUDGET,
    generator: torch.Generator | None = None,
) -> Bracket:
    """Return both ends of the smallest perturbation of each image.

    Args:
        model, images, labels, norm, mode, linear: as in :func:`metrics.bounds.lower.lower_bounds`.
        budget, generator: of
            :func:`metrics.robustness.minimal.perturbation.smallest_perturbation`.

    Raises:
        Contradiction: an attack below a certified bound.
        ValueError: a mode whose formulas do not hold for the model, and as both functions.
    """
    below = lower_bounds(model, images, labels, norm=norm, mode=mode, linear=linear)
    if not below.certified:
        raise ValueError(
            "mode: expected certified or tight, got paper, whose formulas do not hold for this "
            "model's convolutions"
        )
    above = smallest_perturbation(
        model, images, labels, norm=norm, budget=budget, generator=generator
    )
    found = Bracket(below, above, norm)
    crossed = (found.upper < found.lower).nonzero().flatten().tolist()
    if crossed:
        first = crossed[0]
        raise Contradiction(
            f"bracket: expected no attack below a certified bound, got one of "
            f"{float(found.upper[first]):.6g} ({above.found_by[first]}) below "
            f"{float(found.lower[first]):.6g} ({below.by(first)}) for image {first}, and "
            f"{len(crossed) - 1} more: the bound, the attack or the reading of the model is wrong"
        )
    return found


def median(values: Tensor) -> float:
    """Return the median, of an even number of values the mean of the middle two; NaN of none."""
    if not len(values):
        return math.nan
    ordered = values.double().sort().values
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return float(low) if low == high else float((low + high) / 2)
