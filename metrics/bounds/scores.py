"""The bracket as scores of a trial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from metrics.attacks.geometry import check_length, check_norm
from metrics.bounds.both_ends import BUDGET, Bracket, bracket, median
from metrics.bounds.gains.form import check_mode
from metrics.metric import Metric
from metrics.robustness.accuracy import wilson
from metrics.robustness.minimal.perturbation import check_budget
from metrics.robustness.scores import OWN_EPSILON

SHARES = ("certified", "broken", "unknown")


@dataclass(frozen=True, kw_only=True)
class BracketEnds(Metric):
    """Certified lower bounds, smallest attacks found, and what lies between.

    ``_lower`` and ``_upper`` are medians over all images, of which wrong ones count as 0, and
    ``_ratio`` is the median of upper / lower over right ones. ``_certified``, ``_broken`` and
    ``_unknown`` are the shares of images that no perturbation up to epsilon breaks, that one was
    seen to break, and of which neither is known, each with its 95 % Wilson interval. ``_linear`` is
    the share of images whose bound is that of linear relaxation. An attack below a certified bound
    is an error, and the trial fails.

    Args:
        norm: ``linf`` or ``l2``.
        epsilon: radius of the three shares; in L infinity a search fills in its recipe's, and None
            is 8/255; in L2 it has to be given.
        mode, linear, budget: as in :func:`metrics.bounds.both_ends.bracket`.
    """

    default_label: ClassVar[str] = "bracket"
    suffixes: ClassVar[tuple[str, ...]] = (
        "_lower",
        "_upper",
        "_ratio",
        *(f"_{share}{part}" for share in SHARES for part in ("", "_low", "_high")),
        "_linear",
    )
    limit: int | None = 50
    norm: str = "linf"
    epsilon: float | None = None
    mode: str = "tight"
    linear: bool | None = None
    budget: int = BUDGET

    def __post_init__(self) -> None:
        super().__post_init__()
        check_norm(self.norm)
        if self.epsilon is None:
            if self.norm == "l2":
                raise ValueError(OWN_EPSILON)
            object.__setattr__(self, "epsilon", 8 / 255)
        check_length("epsilon", self.epsilon, self.norm, zero=True)  # type: ignore[arg-type]
        check_mode(self.mode)
        check_budget(self.budget)

    def found(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator | None = None,
    ) -> Bracket:
        """Return what :func:`metrics.bounds.both_ends.bracket` finds under these settings."""
        return bracket(
            model,
            images[: self.limit],
            labels[: self.limit],
            norm=self.norm,
            mode=self.mode,
            linear=self.linear,
            budget=self.budget,
            generator=generator,
        )

    def measure(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> tuple[float, ...]:
        found = self.found(model, images, labels, generator)
        n = len(found.lower)
        shares = [float(getattr(found, share)(self.epsilon).double().mean()) for share in SHARES]
        return (
            median(found.lower),
            median(found.upper),
            median(found.ratios),
            *(v for share in shares for v in (share, *wilson(share, n))),
            float(found.below.linear.double().mean()),
        )
