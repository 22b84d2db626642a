"""Which columns of a trial table a person is shown, in which order, and how many of them fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from launch.show.columns import BETWEEN, width_of
from nas.errors import InputError
from nas.ledger.table import Legend
from nas.names import known_names
from nas.search.trust import plain_names
from nas.trial.deviations import DEVIATION

DETAIL = tuple(
    "_stderr _low _high _gradients _cancelled _epoch _seconds _robust_accuracy _radius_mean "
    "_radius_min _passes _images _line _fit_end _fit_images _fit_p".split()
) + (DEVIATION,)
INTERNAL = ("_saturated", "_unbounded", "_share")
"""Ends of scores that say how far another can be believed: behind those that say something."""
ACCURACY = "_accuracy"
SUSPICIOUS = "suspicious"
LEAST = 12  # characters of a reason that are worth showing


def shown_columns(table: pd.DataFrame, legend: Legend) -> Sequence[str]:
    """Return the columns worth printing, those that matter most first.

    Number, status where some trial is not complete, the decisions that tell trials apart, the
    objectives, other accuracies, the reasons of failures, then the rest, internals last.
    """
    scores = [c for c in plain_names(table.columns[3:]) if not c.endswith(DETAIL)]
    if SUSPICIOUS in scores and not table[SUSPICIOUS].any():
        scores.remove(SUSPICIOUS)
    first = [c for c in ("number", *legend.told_apart, *legend.objectives) if c in table]
    if (table["status"] != "complete").any():
        first[1:1] = ["status"]
    hidden = {"epochs", "architecture", *first, *legend.decisions}
    rest = [c for c in scores if c not in hidden]
    accuracies = [c for c in rest if c.endswith(ACCURACY)]
    inside = [c for c in rest if c.endswith(INTERNAL)]
    reason = [] if (table["reason"] == "").all() else ["reason"]
    between = [c for c in rest if c not in {*accuracies, *inside}]
    return [*first, *accuracies, *reason, *between, *inside]


def asked_columns(table: pd.DataFrame, asked: str) -> list[str]:
    """Return the columns of ``A,B,C``, in that order, each once.

    Raises:
        InputError: none, or one that the table does not have.
    """
    names = list(dict.fromkeys(name.strip() for name in asked.split(",") if name.strip()))
    known = [str(name) for name in table.columns]
    if not names:
        raise InputError(f"--columns: expected names with commas between them, got {asked!r}")
    for name in names:
        if name not in known:
            near = known_names(name, plain_names(known), "--format csv")
            raise InputError(f"--columns: expected columns ({near}), got {name!r}")
    return names


def fitting(texts: Mapping[str, Sequence[str]], width: int | None) -> dict[str, list[str]]:
    """Return as many columns as fit in a width, the first in any case.

    Reasons are cut to the room that is left, rather than left out with all that follows.
    """
    shown: dict[str, list[str]] = {}
    room = width
    for name, cells in texts.items():
        wide = max(map(width_of, [name, *cells]))
        if shown and room is not None and room < wide:
            if name != "reason" or room < LEAST:
                break
            cells, wide = [cut(cell, room) for cell in cells], room
        shown[name] = list(cells)
        room = None if room is None else room - wide - BETWEEN
    return shown


def cut(text: str, width: int) -> str:
    """Return a text of at most ``width``, with an ellipsis where it was longer."""
    if width_of(text) <= width:
        return text
    kept = ""
    for character in text:
        if width_of(kept + character) > width - 1:
            break
        kept += character
    return f"{kept}…"
