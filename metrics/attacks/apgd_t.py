"""Targeted Auto-PGD: towards each of the likeliest other classes in turn.

Source: Croce and Hein 2020, *Reliable evaluation of adversarial robustness with an ensemble of
diverse parameter-free attacks*, section 4.1 and equation 7 (arXiv 2003.01690).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from metrics.attacks.apgd import APGD
from metrics.attacks.iterative import check_counts
from metrics.attacks.losses import targeted_dlr


@dataclass(frozen=True, kw_only=True)
class TargetedAPGD(APGD):
    """Auto-PGD towards several classes, the largest clean logits but the label's, a start each.

    Args:
        epsilon, norm, steps: as in :class:`APGD`; every class has so many steps.
        loss: ``dlr`` (the targeted difference of logits ratio, needs 4 classes) or ``ce``.
        restarts: random starts for each class.
        targets: how many classes, at most all but the label's.

    Raises:
        ValueError: as in :class:`APGD`; targets below 1.
    """

    target: str | None = field(default=None, init=False, repr=False)
    loss: str = "dlr"
    targets: int = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(targets=self.targets)

    @property
    def towards(self) -> str | None:
        return "others"

    @property
    def rivals(self) -> int:
        return self.targets

    @property
    def starts(self) -> int:
        return self.restarts * self.targets

    def losses(self, logits: Tensor, aim: Tensor) -> Tensor:
        return targeted_dlr(logits, aim) if self.loss == "dlr" else super().losses(logits, aim)
