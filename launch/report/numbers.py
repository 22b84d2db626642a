"""Numbers as a reader of a paper would write them, and the interval of a trial's score."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

QUANTILE = 1.959963984540054  # of the standard normal distribution at 0.975


def told(value: Any, name: str = "") -> str:
    """Return a value of a score: accuracies in percent, others to four digits; a dash for none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if is_share(name):
        return f"{100 * value:.1f} %"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4g}"


def is_share(name: str) -> bool:
    """Whether a score is an accuracy, a share in [0, 1]."""
    return name.endswith("accuracy")


def interval(row: Mapping[Any, Any], score: str) -> tuple[float, float] | None:
    """Return the 95 % interval of a trial's score: its own, or of its standard error, or None."""
    ends = [_float(row.get(score + end)) for end in ("_low", "_high")]
    if not any(math.isnan(end) for end in ends):
        return ends[0], ends[1]
    value, error = _float(row.get(score)), _float(row.get(f"{score}_stderr"))
    if math.isnan(value) or math.isnan(error):
        return None
    return value - QUANTILE * error, value + QUANTILE * error


def with_interval(row: Mapping[Any, Any], score: str) -> str:
    """Return a score with its interval: ``84.0 % [80.2, 87.1]``."""
    value, ends = told(row.get(score), score), interval(row, score)
    if ends is None or value == "–":
        return value
    unit = 100 if is_share(score) else 1
    digits = ".1f" if is_share(score) else ".4g"
    return f"{value} [{unit * ends[0]:{digits}}, {unit * ends[1]:{digits}}]"


def counted(n: int, one: str, many: str = "") -> str:
    """Return ``1 trial``, ``12 trials``, ``10,000 trials``."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def _float(value: Any) -> float:
    return math.nan if value is None else float(value)
