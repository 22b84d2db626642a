"""What a theorem says of a model: its bound, beside the exact probability of what it bounds."""

from __future__ import annotations

from dataclasses import dataclass

AT_LEAST, AT_MOST = "at least", "at most"
ROUNDING = 1e-9  # relative to the bound: what quadrature may be off


@dataclass(frozen=True)
class Statement:
    """A theorem at one set of parameters.

    Attributes:
        theorem: as in the paper, such as ``theorem 4``.
        event: whose probability it bounds; see :mod:`metrics.stability.theory.estimate`.
        size: of the event, a length: delta of an attack or of noise, gamma of a margin.
        side: ``at least`` or ``at most``.
        bound: as in the paper, not cut to [0, 1]: -inf or inf where A^n is too large for a float.
        exact: the probability, to about 10 digits. Ours.
        ours: whether the bound is ours too, a sharper one than the paper's.
    """

    theorem: str
    event: str
    size: float
    side: str
    bound: float
    exact: float
    ours: bool = False

    @property
    def vacuous(self) -> bool:
        """Whether the bound says nothing, as at least 0 or at most 1 do."""
        return self.bound <= 0 if self.side == AT_LEAST else self.bound >= 1

    @property
    def holds(self) -> bool:
        """Whether the bound is on its side of the exact probability, up to rounding."""
        if self.side == AT_LEAST:
            return self.exact >= self.bound - 1e-12
        return self.exact <= self.bound * (1 + ROUNDING) + 1e-300

    @property
    def gap(self) -> float:
        """How far the bound, cut to [0, 1], is from the exact probability."""
        return abs(min(max(self.bound, 0.0), 1.0) - self.exact)
