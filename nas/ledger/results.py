"""The names that the ledger uses: of its file, its study, and what it holds of a trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

JOURNAL = "study.journal"
"""The ledger's file in a run directory."""

STUDY = "psinas"
"""The name of the study in a run directory's own journal."""

RESULT = "psinas"
"""The attribute of a finished trial: status, reason, scores, architecture, cost, versions."""


ORDER = "order"
"""Where a result keeps how many had ended before it: clocks may jump back."""


RETRY_OF = "retry_of"
"""The attribute of a trial that takes the place of a failed one: Optuna's number of that."""


PLACE = "place"
"""The attribute of a trial with its number among the different ones; see :func:`place_of`."""


RUN_ID = "run_id"
"""What tells a run from another of its name: in its configuration, and in its study."""


DRIVER = "driver"
"""The attribute of a trial that holds the id of the driver that runs it."""


RUNGS = "rungs"
"""Where a ledger's result keeps what a trial had at its rungs: ``{"3": {"accuracy": 0.5}}``."""


MEMORY_STEPS = "memory_steps"
"""Where a result keeps how its trial was tried after its memory ran out: ``["shared", "alone"]``.

Absent where it never did."""
REUSED_FROM = "reused_from"
"""Where a result keeps whose scores it took: ``RUN:NUMBER`` of another run."""


def place_of(number: int, attributes: Mapping[str, Any]) -> int | None:
    """Return the number by which people know a trial: 0, 1, 2, ... over the different ones.

    Args:
        number: Optuna's, which counts every proposal.
        attributes: of the trial. A ledger of before there were places keeps Optuna's numbers.

    Returns:
        None for a proposal that was not handed out: it repeats another trial, or it is not known
        yet whether it does.
    """
    place: int | None = attributes.get(PLACE, number)
    return place


def reached_rungs(result: Mapping[str, Any]) -> dict[int, dict[str, float]]:
    """Return what a result of the ledger tells of its rungs: epoch -> values, lowest first.

    Empty for a search without a scheduler.
    """
    rungs = result.get(RUNGS, {})
    return {int(epoch): dict(rungs[epoch]) for epoch in sorted(rungs, key=int)}
