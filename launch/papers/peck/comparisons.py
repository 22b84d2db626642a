"""Peck et al.'s numbers beside ours, from the tables that their reproductions leave."""

from __future__ import annotations

import pandas as pd

from launch.papers.peck.printed import COLUMNS, PIXELS, printed_for
from launch.show.comparison import Comparison, number
from metrics.bounds.gains.form import MODES

FACTOR = 2.0  # within which sizes and bounds count as the paper's
NOT_SAID = "the paper does not say of which pixels, and divides by their number"
WRONG = {
    "paper": "theorems 4.1 and 4.2 are wrong as printed: a pixel lies in several windows, and a "
    "second derivative's bound is not the Hessian's",
}


def counterexamples(table: pd.DataFrame, data: str) -> list[Comparison]:
    """Of each mode, how many lower bounds a real perturbation refutes: of theorems, none."""
    return [
        number(
            f"lower bounds of {len(table)} that a shorter perturbation refutes, mode {mode}",
            0,
            int(table[f"{mode}_refuted"].sum()),
            note=WRONG.get(mode, ""),
        )
        for mode in MODES
    ]


def bounds(table: pd.DataFrame, data: str) -> list[Comparison]:
    """Tables 1 and 2: attacks and lower bounds of plain nets; and bounds that attacks refute."""
    found = []
    paper = printed_for(data)
    plain = table[table["training"] == "plain"]
    for (search, trial), rows in plain.groupby(["search", "number"], sort=False):
        net = f"{search}, trial {trial}" if plain["number"].nunique() > 1 else str(search)
        d = int(rows["d"].iloc[0])
        for of, unit, theirs, note in (
            ("fgsm as printed", PIXELS / d, paper and paper.fgs, ""),
            ("paper", 1 / d, paper and paper.bounds, NOT_SAID),
        ):
            row = rows[rows["of"] == of]
            if not theirs or row.empty:
                continue
            what = "smallest attack" if of.startswith("fgsm") else "lower bound, paper's formulas"
            for column, value in zip(COLUMNS[:2], theirs[:2], strict=True):
                ours = unit * float(row[column].iloc[0])
                found.append(
                    number(f"{net}: {what} / {d}, {column}", value, ours, factor=FACTOR, note=note)
                )
    for mode in MODES:
        rows = table[table["of"] == mode]
        found.append(
            number(
                f"attacks below a lower bound, mode {mode}, {len(rows)} nets",
                0,
                int(rows["violations"].sum()),
                note=WRONG.get(mode, ""),
            )
        )
    return found
