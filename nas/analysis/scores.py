"""What the functions of an analysis ask of a table first: which scores, which way, which rows."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import pandas as pd

from nas.errors import InputError
from nas.ledger.table import Legend
from nas.search.trust import plain_names, suspicions, was_checked

Scores = str | Sequence[str] | Mapping[str, str] | None
"""Names of scores, or name -> ``max`` or ``min``; None stands for the objectives."""

SHOWN = 8  # names that still fit on a line


def ways_of(table: pd.DataFrame, scores: Scores = None) -> dict[str, str]:
    """Return score -> ``max`` or ``min``.

    As the search has it; of other scores, and of a table without ``attrs``, accuracies are better
    high and all else low (:meth:`nas.ledger.table.Legend.direction`).

    Raises:
        InputError: no such score, none at all, or another way.
    """
    objectives = table.attrs.get("objectives", {})
    if scores is None:
        scores = dict(objectives)
        if not scores:
            raise InputError("expected scores: the table says of no objectives")
    names = [scores] if isinstance(scores, str) else list(scores)
    if not names or len(set(names)) < len(names):
        raise InputError(f"expected different scores, got {names or 'none'}")
    known = {**table.attrs.get("directions", {}), **objectives}
    legend = Legend(known, (), ())
    found = {}
    for name in names:
        check_score(table, name)
        found[name] = scores[name] if isinstance(scores, Mapping) else legend.direction(name)
    if wrong := {name: way for name, way in found.items() if way not in ("max", "min")}:
        raise InputError(f"expected max or min of every score, got {wrong}")
    return found


def check_score(table: pd.DataFrame, name: str) -> None:
    """Refuse what is no column of numbers.

    Raises:
        InputError: such a name, with those that are near it.
    """
    numeric = plain_names(map(str, table.select_dtypes("number").columns))
    if name in table and pd.api.types.is_numeric_dtype(table[name]):
        return
    near = difflib.get_close_matches(name, numeric, n=SHOWN, cutoff=0.5)
    shown = near or numeric[:SHOWN]
    more = "" if near or len(numeric) <= SHOWN else ", ..."
    raise InputError(f"expected a score ({', '.join(shown)}{more}), got {name!r}")


def complete_rows(table: pd.DataFrame, *, trusted: bool = False) -> pd.DataFrame:
    """Return the complete trials, each architecture's repeats aside.

    Args:
        table: a trial table.
        trusted: without those that raise a suspicion flag.

    Raises:
        InputError: ``trusted``, and no trial was checked.
    """
    rows = table[(table["status"] == "complete").to_numpy(bool)]
    if "repeat_of" in rows:
        rows = rows[rows["repeat_of"].isna()]
    if not trusted:
        return rows
    flags = [name for name in map(str, rows.columns) if was_checked({name: 1.0})]
    if not flags:
        raise InputError(
            "trusted: expected a search with the metric suspicion, got none of its scores"
        )
    raised = [
        bool(suspicions({str(k): v for k, v in row.items()}))
        for row in rows[flags].to_dict("records")
    ]
    return rows[[not doubtful for doubtful in raised]]
