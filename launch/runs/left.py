"""Which of the trials that the ledger calls running nobody runs any more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from launch.runs.run import Run
from nas.ledger.living import Holder, lives
from nas.ledger.records import standing
from nas.ledger.results import DRIVER
from nas.search.running_file import Seen, seen

LEFT = "left"
REASON = "left by a driver that ended: --resume goes on"


def left_in(run: Run, found: Seen | None = None) -> set[int]:
    """Return the numbers of the trials that a driver left behind; only what is known counts.

    A driver of a database that others share too is known to have ended where it said so, or where
    it ran on this machine and its process is gone.

    Args:
        run: a run.
        found: what its directory says of its driver; None reads it.
    """
    found = seen(run.path) if found is None else found
    waiting = [record for record in standing(run.records) if record.result is None]
    if not waiting:
        return set()
    if not run.document.get("storage"):
        return {record.number for record in waiting} if found.over else set()
    me = run.document.get(DRIVER, run.id)
    said = run.drivers
    left = set()
    for record in waiting:
        owner = record.driver or run.id
        if found.over if owner == me else _gone(said.get(str(owner))):
            left.add(record.number)
    return left


def mark_left(table: pd.DataFrame, left: set[int]) -> pd.DataFrame:
    """Return a trial table in which trials that were left behind are not called running."""
    table = table.copy()
    gone = table["number"].isin(left) & (table["status"] == "running")
    table.loc[gone, ["status", "reason"]] = [LEFT, REASON]
    return table


def _gone(said: Mapping[str, Any] | None) -> bool:
    if said is None:
        return False
    process = Holder(int(said.get("pid", 0)), str(said.get("host", "")))
    return bool(said.get("left")) or lives(process) is False
