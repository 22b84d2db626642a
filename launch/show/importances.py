"""Which decisions made the difference, for a person."""

from __future__ import annotations

import pandas as pd

from launch.show.columns import aligned
from launch.show.printed import short
from launch.show.tables import on_a_line

METHODS = {
    "ped-anova": "what tells the best tenth of the trials from all (PED-ANOVA)",
    "fanova": "what explains the variance over all choices (fANOVA)",
}


def importance_lines(found: pd.DataFrame) -> list[str]:
    """Return what a person is told of the table of :func:`nas.analysis.importance`."""
    said = found.attrs
    head = f"{on_a_line(said['score'])} ({said['direction']}): {METHODS[said['method']]}"
    columns = {
        "decision": [on_a_line(name) for name in found["decision"]],
        "importance": [short(value) for value in found["importance"]],
        "95 %": [
            "-" if pd.isna(low) else f"[{short(low)}, {short(high)}]"
            for low, high in zip(found["low"], found["high"], strict=True)
        ],
        "n": [str(n) for n in found["n"]],
    }
    rows = aligned(columns, ["importance", "n"]) if len(found) else []
    return [head, *rows, *(f"note: {on_a_line(note)}" for note in said["notes"])]
