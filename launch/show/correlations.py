"""Which scores of a search go together, for a person: those with the first objective first."""

from __future__ import annotations

import pandas as pd
from rich.console import Console

from launch.show.columns import aligned
from launch.show.shown_columns import shown_columns
from launch.show.tables import trusted
from nas.analysis.correlation import correlations
from nas.errors import InputError
from nas.ledger.table import Legend

FEWEST = 4  # trials; below there is no interval


def correlation_table(
    table: pd.DataFrame, legend: Legend, *, top: int | None = None, trust: bool = False
) -> pd.DataFrame:
    """Return the correlations of the numeric columns that the trial table shows.

    The pairs with the search's first objective come first; it is their ``a``.

    Args:
        table: a trial table, without repeats.
        legend: of its search.
        top: how many rows.
        trust: leave suspicious trials out.

    Raises:
        InputError: too few complete trials, or fewer than two columns that vary.
    """
    table = trusted(table) if trust else table
    complete = int((table["status"] == "complete").sum())
    if complete < FEWEST:
        which = "complete trials without a raised flag" if trust else "complete trials"
        raise InputError(f"--correlations: expected at least {FEWEST} {which}, got {complete}")
    objective = next(iter(legend.objectives))
    numeric = set(table.select_dtypes("number").columns) - {"number"}
    names = [name for name in shown_columns(table, legend) if name in numeric]
    found = correlations(table, sorted(names, key=lambda name: name != objective))
    if found.empty:
        raise InputError(
            f"--correlations: expected two scores that vary over the {complete} complete trials, "
            f"got fewer of {', '.join(names)}"
        )
    found = found.sort_values("a", key=lambda a: a != objective, kind="stable", ignore_index=True)
    return found.head(top) if top is not None else found


def print_correlations(console: Console, found: pd.DataFrame) -> None:
    """Print correlations as aligned columns, ``-0.91 [-0.97, -0.75]``."""
    columns = {
        "a": list(found["a"]),
        "b": list(found["b"]),
        "n": [str(n) for n in found["n"]],
        "spearman": _cells(found, "spearman"),
        "kendall": _cells(found, "kendall"),
    }
    for line in aligned(columns, right=["n"]):
        console.out(line, highlight=False)
    console.out("(95 % intervals, each for its pair alone)", highlight=False)


def _cells(found: pd.DataFrame, kind: str) -> list[str]:
    ends = zip(found[kind], found[f"{kind}_low"], found[f"{kind}_high"], strict=True)
    return [f"{_number(value)} [{_number(low)}, {_number(high)}]" for value, low, high in ends]


def _number(value: float) -> str:
    return f"{'-':>5}" if pd.isna(value) else f"{value:z5.2f}"
