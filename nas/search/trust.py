"""Which trials are to be believed: a raised suspicion flag says that an accuracy may be false."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

RAISED = "_raised"
BEGIN = "suspicion_"


def suspicions(scores: Mapping[str, Any]) -> list[str]:
    """Return the names of the flags that a trial's scores raise, none without the metric."""
    return [
        name.partition(BEGIN)[2].removesuffix(RAISED)
        for name, value in scores.items()
        if BEGIN in name and name.endswith(RAISED) and value == 1.0
    ]


def plain_names(names: Iterable[str]) -> list[str]:
    """Return the names of scores that a person should read: not every flag's value."""
    return [name for name in names if BEGIN not in name]


def was_checked(scores: Mapping[str, Any]) -> bool:
    """Whether the scores hold any suspicion flag, raised or not."""
    return any(BEGIN in name and name.endswith(RAISED) for name in scores)


def trusted_first(results: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the results without a raised flag, or all where every one has one."""
    return [r for r in results if not suspicions(r["scores"])] or list(results)
