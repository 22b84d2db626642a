"""Fast gradient (sign) method. Source: Goodfellow et al. 2015 (arXiv 1412.6572)."""

from __future__ import annotations

from dataclasses import dataclass

from metrics.attacks.geometry import check_norm
from metrics.attacks.one_step import OneStep


@dataclass(frozen=True, kw_only=True)
class FGSM(OneStep):
    """Fast gradient (sign) method: one step of length epsilon, no random start.

    Args:
        epsilon: length of the step.
        norm: ``linf`` takes the sign of the gradient, ``l2`` the unit gradient.
    """

    norm: str = "linf"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_norm(self.norm)

    @property
    def distance(self) -> str:
        return self.norm
