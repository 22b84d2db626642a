"""Scores with a spread: a mean over repeats under its name, its deviation under ``<name>_std``.

This file loads no torch, so that a table need not wait for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

DEVIATION = "_std"
"""Ends the name of the sample deviation of a score over the repeats of its trial."""

FLAG, FLAG_RAISED = "suspicion_", "_raised"
_WITHOUT = ("_stderr", "_low", "_high", "_seconds", "_is_average", DEVIATION)
"""Ends of names of scores that are no quantity of their own, wall time, or yes or no."""


def has_deviation(name: str) -> bool:
    """Whether a score has a deviation beside it, where its trial is repeated."""
    return FLAG not in name and not name.endswith(_WITHOUT)


def deviation(scores: Mapping[str, float], name: str) -> float | None:
    """Return the deviation of a score over the repeats; None of a trial that has but one."""
    return scores.get(name + DEVIATION) if has_deviation(name) else None


def cautious(scores: Mapping[str, float], name: str, direction: str) -> float:
    """Return the worse end of mean ± deviation: what to judge by, and not the luckiest seed.

    The lower end where more is better, the upper where less is. Without repeats, and for a score
    that has no deviation, it is the score. NaN without the score.
    """
    mean = scores.get(name, math.nan)
    spread = deviation(scores, name) or 0.0
    return mean - spread if direction == "max" else mean + spread


def told(scores: Mapping[str, float], name: str) -> str:
    """Return a score for a person, with its deviation where it has one: ``0.512 ± 0.013``."""
    spread = deviation(scores, name)
    value = f"{scores[name]:.4g}"
    return value if spread is None or math.isnan(spread) else f"{value} ± {spread:.2g}"
