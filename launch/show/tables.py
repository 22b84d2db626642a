"""The trial table for a person: the columns that matter, the front marked, as many as fit.

What a table is for a program stands in ``nas.ledger.table``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from launch.show.columns import aligned
from launch.show.nearby import seen_from_here
from launch.show.outputs import write_file
from launch.show.shown_columns import fitting
from launch.show.shown_columns import shown_columns as shown_columns
from nas.errors import InputError
from nas.ledger.formats import csv_text, json_text
from nas.ledger.fronts import pareto_front
from nas.ledger.results import REUSED_FROM
from nas.ledger.table import Legend
from nas.names import known_names
from nas.search.trust import advice, plain_names, suspicions, was_checked
from nas.search.winners import overruled
from nas.trial.deviations import DEVIATION
from nas.trial.deviations import told as with_deviation

MOST = 20  # rows of a table that nobody asked for


def print_trials(
    console: Console,
    table: pd.DataFrame,
    legend: Legend,
    front: Front | None = None,
    *,
    columns: Sequence[str] | None = None,
) -> None:
    """Print a trial table, marking the trials of ``front`` (the search's own where None) by a star.

    A suspicious trial is marked by an exclamation mark; its flags are named and explained below.

    Args:
        console: where to.
        table: its rows, in their order.
        legend: of its search.
        front: which trials are on which front.
        columns: to print, however wide they are; None chooses those that matter and fit.
    """
    if table.empty:
        console.out("no trials", highlight=False)
        return
    front = front_of(table, legend) if front is None else front
    flags = flags_of(table)
    chosen = shown_columns(table, legend) if columns is None else columns
    texts = {name: _texts(table, name) for name in dict.fromkeys(["number", *chosen])}
    if REUSED_FROM in texts:
        texts[REUSED_FROM] = [seen_from_here(text) if text else "-" for text in texts[REUSED_FROM]]
    texts["number"] = [
        f"{n}{'*' if n in front.numbers else ''}{'!' if n in flags else ''}"
        for n in table["number"]
    ]
    shown = fitting(texts, console.width if console.is_terminal and columns is None else None)
    right = [name for name in shown if _numeric(table, name)]
    lines = aligned({on_a_line(name): cells for name, cells in shown.items()},
                    [on_a_line(name) for name in right])  # fmt: skip
    console.out("\n".join(lines), highlight=False)  # at once: of 10,000 lines each costs 0.3 ms
    if left := len(texts) - len(shown):
        console.out(f"({left} more columns: --columns A,B or --format csv)", highlight=False)
    if front.numbers & set(table["number"]):
        scores = on_a_line(", ".join(front.scores))
        console.out(f"* on the Pareto front of {scores}", highlight=False)
    for number, names in flags.items():
        console.out(f"! trial {number} is suspicious: {', '.join(names)}", highlight=False)
    for line in advice(name for names in flags.values() for name in names):
        console.out(f"  {line}", highlight=False)


def shortened(
    table: pd.DataFrame, legend: Legend, run: Path, most: int = MOST
) -> tuple[pd.DataFrame, str | None]:
    """Return the best rows of a long table, and a line that says where the rest is.

    Args:
        table: of a whole search.
        legend: of it.
        run: its directory.
        most: how many rows are no long table yet.
    """
    if len(table) <= most:
        return table, None
    objective = next(iter(legend.objectives))
    best = select(table, legend, sort=None, pareto=None, top=most)
    some = f"the best {most} of {len(table)} trials by {objective}"
    if objective not in table:
        some = f"{most} of {len(table)} trials, none complete"
    return best, f"{some}; all of them: psinas trials {run}, {run / 'trials.csv'}"


def flags_of(table: pd.DataFrame) -> dict[int, list[str]]:
    """Return the suspicious trials of a table: number -> raised flags."""
    flags = [name for name in map(str, table.columns) if was_checked({name: 1.0})]
    raised = table[(table[flags] == 1.0).any(axis=1)]
    rows = zip(raised["number"], raised[flags].to_dict("records"), strict=True)
    found = {int(number): suspicions({str(k): v for k, v in row.items()}) for number, row in rows}
    return {number: names for number, names in found.items() if names}


def doubt_lines(
    results: Sequence[Mapping[str, Any]], winner: Mapping[str, Any], score: str, direction: str
) -> list[str]:
    """Return which suspicious trials scored better than the winner, whether it is one, and why.

    Args:
        results: of the ledger.
        winner: one of them.
        score: on which it won.
        direction: ``max`` or ``min``.
    """
    lines = []
    if flags := suspicions(winner["scores"]):
        number = winner["number"]
        lines.append(f"trial {number} is suspicious, as is every other: {', '.join(flags)}")
    for result in overruled(results, winner, score, direction):
        names = suspicions(result["scores"])
        flags += names
        value = with_deviation(result["scores"], score)
        lines.append(
            f"trial {result['number']} has {score} {value} but is "
            f"suspicious ({', '.join(names)}): left out"
        )
    return [*lines, *(f"  {line}" for line in advice(flags))]


def trusted(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows without a raised flag.

    Raises:
        InputError: no trial was checked.
    """
    if not was_checked(dict.fromkeys(map(str, table.columns))):
        raise InputError(
            "--trust: expected a search with the metric suspicion, got none of its scores: "
            "add it to metrics"
        )
    return table[~table["number"].isin(list(flags_of(table)))]


@dataclass(frozen=True)
class Front:
    """A Pareto front: the scores that it is of, and the numbers of its trials."""

    scores: tuple[str, ...]
    numbers: frozenset[int]


def front_of(
    table: pd.DataFrame, legend: Legend, *, pareto: str | None = None, trust: bool = False
) -> Front:
    """Return the front of the search's objectives, or of the scores that were asked for.

    Args:
        table: a trial table.
        legend: of its search.
        pareto: scores with commas; ``SCORE:max`` or ``SCORE:min`` says which way.
        trust: leave suspicious trials out of it.

    Raises:
        InputError: no such score, or another way than max and min.
    """
    table = trusted(table) if trust else table
    if pareto is None:
        names, ways = list(legend.objectives), list(legend.objectives.values())
    else:
        pairs = [name.strip().partition(":") for name in pareto.split(",")]
        names = [_score(table, legend, name) for name, _, _ in pairs]
        ways = [way or legend.direction(name) for name, _, way in pairs]
        if unknown := set(ways) - {"max", "min"}:
            raise InputError(f"--pareto: expected SCORE:max or SCORE:min, got {sorted(unknown)}")
    complete = table[table["status"] == "complete"]
    if complete.empty:
        return Front(tuple(names), frozenset())
    inside = pareto_front(complete[names].to_numpy(), ways)
    return Front(tuple(names), frozenset(map(int, complete["number"][inside])))


def select(
    table: pd.DataFrame,
    legend: Legend,
    *,
    sort: str | None,
    pareto: str | None,
    top: int | None,
    trust: bool = False,
) -> pd.DataFrame:
    """Return the rows of a front, sorted best first, at most ``top`` of them.

    Args:
        table: a trial table.
        legend: of its search, which says what is better.
        sort: a score; None leaves the order, but of a ``top``, which is the best by the first score
            of ``pareto``, else by the search's first objective.
        pareto: scores with commas; ``SCORE:max`` or ``SCORE:min`` says which way.
        top: how many rows.
        trust: leave suspicious trials out of the front and of the top.

    Raises:
        InputError: no such score, or another way than max and min.
    """
    if trust and (pareto is not None or top is not None):
        table = trusted(table)
    way = None
    if pareto is not None:
        front = front_of(table, legend, pareto=pareto)
        table = table[table["number"].isin(front.numbers) & (table["status"] == "complete")]
        if sort is None and top is not None:
            sort, way = front.scores[0], pareto.split(",")[0].partition(":")[2].strip() or None
    if sort is None and top is not None:
        objective = next(iter(legend.objectives))
        sort = objective if objective in table else None  # no trial has ended yet
    if sort is not None:
        ascending = (way or legend.direction(_score(table, legend, sort))) == "min"
        table = table.sort_values(sort, ascending=ascending, kind="stable", na_position="last")
    return table.head(top) if top is not None else table


def write_trials(table: pd.DataFrame, format: str, out: Path | None) -> str:
    """Write a table as ``csv``, ``json`` or ``parquet``; return what is to be printed instead.

    Raises:
        InputError: ``out`` cannot be written, or is missing for parquet.
    """
    if format == "parquet" and out is None:
        raise InputError("--format parquet: expected --out FILE, got none")
    if format == "parquet" and out is not None:
        write_file(out, lambda partial: table.to_parquet(partial, index=False))
        return ""
    text = json_text(table) if format == "json" else csv_text(table)
    if out is None:
        return text
    write_file(out, lambda partial: partial.write_bytes(text.encode()))
    return ""


def _score(table: pd.DataFrame, legend: Legend, name: str) -> str:
    numeric = [str(column) for column in table.select_dtypes("number").columns]
    if name not in numeric and not (table["status"] == "complete").any():
        raise InputError(f"expected a trial that has {name}, got none that is complete")
    if name not in numeric:
        likely = [*legend.objectives, *plain_names(numeric)]
        known = known_names(name, likely, "psinas trials RUN --format csv")
        raise InputError(f"expected a score ({known}), got {name!r}")
    return name


def _numeric(table: pd.DataFrame, name: str) -> bool:
    return bool(pd.api.types.is_numeric_dtype(table[name]))


def _texts(table: pd.DataFrame, name: str) -> list[str]:
    """Return the cells of a column; a mean over repeats stands beside its deviation."""
    texts = [_cell(value) for value in table[name]]
    if (spread := name + DEVIATION) not in table:
        return texts
    pairs = zip(texts, table[spread], strict=True)
    return [text if pd.isna(d) else f"{text} ± {d:.2g}" for text, d in pairs]


def _cell(value: Any) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.4g}"
    return on_a_line(str(value))


def on_a_line(text: str) -> str:
    """Return a text as a terminal shows it on one line: its control characters as ``\\r``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
