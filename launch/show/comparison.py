"""A paper's number beside ours: the ratio, and whether the two agree by a rule that is stated."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

NOTHING = (math.nan, math.nan)


@dataclass(frozen=True)
class Comparison:
    """One number that a paper prints, or a range that it states, beside ours.

    The two agree where our interval, or our number without one, meets the paper's range widened by
    ``factor`` and then by ``margin``.

    Attributes:
        what: in words.
        paper: the ends of the range; equal of one number, infinite where it states one end only.
        ours: NaN where nothing was measured.
        interval: the ends of our 95 % interval; NaN of none.
        factor: >= 1, by which the ends may be missed.
        margin: >= 0, by which they may be missed besides.
        note: why they differ, where that is known.
    """

    what: str
    paper: tuple[float, float]
    ours: float
    interval: tuple[float, float] = NOTHING
    factor: float = 1.0
    margin: float = 0.0
    note: str = ""

    @property
    def ratio(self) -> float:
        """Ours over the paper's number, or over the nearer end of its range; 1 within a range.

        NaN where there is no such number: of 0, and of nothing measured.
        """
        low, high = self.paper
        if low < self.ours < high:
            return 1.0 if math.isfinite(low) and math.isfinite(high) else math.nan
        end = low if self.ours <= low else high
        return self.ours / end if end and math.isfinite(end) else math.nan

    @property
    def agrees(self) -> bool | None:
        """Whether ours and the paper's meet; None where nothing was measured."""
        if math.isnan(self.ours):
            return None
        ends = (self.ours, *(v for v in self.interval if not math.isnan(v)))
        low, high = self.paper
        low = (low / self.factor if low > 0 else low * self.factor) - self.margin
        high = (high * self.factor if high > 0 else high / self.factor) + self.margin
        return max(ends) >= low and min(ends) <= high

    @property
    def printed(self) -> str:
        """The paper's number or range as text."""
        low, high = self.paper
        if low == high:
            return f"{low:.4g}"
        if math.isinf(high):
            return f"more than {low:.4g}"
        return f"less than {high:.4g}" if math.isinf(low) else f"{low:.4g} to {high:.4g}"

    @property
    def measured(self) -> str:
        """Our number and its interval as text."""
        if math.isnan(self.ours):
            return "not measured"
        low, high = self.interval
        return f"{self.ours:.4g}" + ("" if math.isnan(low) else f" [{low:.4g}, {high:.4g}]")

    @property
    def rule(self) -> str:
        """How far they may be apart, as text."""
        parts = [f"x/÷ {self.factor:g}"] if self.factor != 1 else []
        parts += [f"± {self.margin:g}"] if self.margin else []
        alone = "exactly" if math.isnan(self.interval[0]) else "our interval"
        return ", ".join(parts) or alone

    def row(self) -> dict[str, Any]:
        """Return it as a row of a table, with what follows from it."""
        own = asdict(self)
        (low, high), (ours_low, ours_high) = own.pop("paper"), own.pop("interval")
        return {
            "what": own.pop("what"),
            "paper_low": low,
            "paper_high": high,
            "ours": own.pop("ours"),
            "ours_low": ours_low,
            "ours_high": ours_high,
            "ratio": self.ratio,
            "agrees": self.agrees,
            **own,
        }


def number(what: str, paper: float, ours: float, **settings: Any) -> Comparison:
    """Return one printed number beside ours; see :class:`Comparison` for the settings."""
    return Comparison(what, (paper, paper), ours, **settings)


def more(what: str, than: float, ours: float, **settings: Any) -> Comparison:
    """Return ours beside a paper's "more than"."""
    return Comparison(what, (than, math.inf), ours, **settings)


def less(what: str, than: float, ours: float, **settings: Any) -> Comparison:
    """Return ours beside a paper's "less than"."""
    return Comparison(what, (-math.inf, than), ours, **settings)


def span(text: str) -> tuple[float, float] | None:
    """Return the range that ``0.9 to 1.3`` or ``1.1`` says; None of no number."""
    ends = [float(part) for part in text.split(" to ")] if text else []
    return (ends[0], ends[-1]) if ends else None


def tally(found: Iterable[Comparison]) -> tuple[int, int, int]:
    """Return how many agree, how many do not, and of how many nothing was measured."""
    answers = [comparison.agrees for comparison in found]
    return answers.count(True), answers.count(False), answers.count(None)
