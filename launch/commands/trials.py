"""The command ``psinas trials``: loads neither torch nor ray nor optuna."""

from __future__ import annotations

import sys
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from launch.commands.options import RunArgument
from launch.runs.run import Run
from launch.show.console import console, say
from launch.show.numbers import gaps_line
from launch.show.tables import front_of, print_trials, select, write_trials
from nas.errors import InputError


class Format(StrEnum):
    """How ``psinas trials`` prints."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


def trials(
    run: RunArgument,
    sort: Annotated[str | None, typer.Option(metavar="SCORE", help="Best first.")] = None,
    pareto: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Only the front over these scores; A:max says which way."),
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, help="Only so many rows.")] = None,
    format: Annotated[
        Format | None, typer.Option(help="How to print; of --out by default as its name ends.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write here instead of printing.")] = None,
    repeats: Annotated[
        bool, typer.Option("--repeats", help="Also proposals answered from the ledger.")
    ] = False,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Leave suspicious trials out of front, top and correlations."),
    ] = False,
    correlations: Annotated[
        bool, typer.Option("--correlations", help="Instead: which scores go together, by rank.")
    ] = False,
) -> None:
    """Show the trial table, also of a search that is running.

    Example: psinas trials runs/digits --pareto pgd_accuracy,parameters --format csv
    """
    barred = {"--sort": sort, "--pareto": pareto, "--repeats": repeats or None}
    if correlations and (given := [name for name, value in barred.items() if value is not None]):
        raise InputError(f"--correlations: expected none of {', '.join(barred)}, got {given[0]}")
    found = Run(run)
    table, legend = found.table(repeats=repeats), found.legend
    if correlations:
        from launch.show.correlations import correlation_table, print_correlations  # slow: scipy

        table = correlation_table(table, legend, top=top, trust=trust)
        show = partial(print_correlations, console, table)
    else:
        front = front_of(table, legend, trust=trust)
        table = select(table, legend, sort=sort, pareto=pareto, top=top, trust=trust)
        show = partial(print_trials, console, table, legend, front)
    how = _format(format, out)
    if how is Format.table:
        show()
        if not repeats and not correlations and (gaps := gaps_line(found.records)):
            say(gaps)
    else:
        _print_bytes(write_trials(table, how.value, out))


def _format(asked: Format | None, out: Path | None) -> Format:
    """Return how to print: as is asked, or as the file's name ends, CSV where it says nothing."""
    if asked is Format.table and out is not None:
        raise InputError(f"--format table: expected csv, json or parquet for a file, got {out}")
    if asked is not None or out is None:
        return asked or Format.table
    ending = out.suffix.lower().removeprefix(".")
    return Format(ending) if ending in ("json", "parquet") else Format.csv


def _print_bytes(text: str) -> None:
    """Print for a program: UTF-8 and line ends as they are, whatever the terminal's locale."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()
