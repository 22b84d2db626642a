"""The command ``psinas trials``: loads neither torch nor ray nor optuna."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live
from rich.text import Text

from launch.commands.options import RunArgument
from launch.runs.left import left_in, mark_left
from launch.runs.room import room_line
from launch.runs.run import Run
from launch.runs.watching import watch as looks_at
from launch.show.console import console, say
from launch.show.numbers import gaps_line
from launch.show.shown_columns import asked_columns
from launch.show.tables import front_of, print_trials, select, write_trials
from launch.show.watched import Look, plain, screen, silence
from nas.errors import InputError
from nas.search.running_file import seen


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
    top: Annotated[
        int | None,
        typer.Option(min=1, help="So many rows, best first: by --sort or objective."),
    ] = None,
    columns: Annotated[
        str | None, typer.Option(metavar="A,B", help="These columns, in this order.")
    ] = None,
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
    watch: Annotated[
        bool, typer.Option("--watch", help="Instead: what runs, again and again until the end.")
    ] = False,
    every: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=0.5, help="Between looks: 5, piped 30.")
    ] = None,
) -> None:
    """Show the trial table, also of a search that is running.

    A trial that a driver left behind when it ended is called left. --watch ends with the search
    (exit code 0), with a driver that was killed (1), or at Ctrl-C (130).

    Example: psinas trials runs/digits --pareto pgd_accuracy,parameters --format csv
    """
    if watch or every is not None:
        others = {
            "--sort": sort, "--pareto": pareto, "--top": top, "--columns": columns,
            "--format": format, "--out": out, "--repeats": repeats or None,
            "--trust": trust or None, "--correlations": correlations or None,
            "--every without --watch": not watch or None,
        }  # fmt: skip
        if given := [name for name, value in others.items() if value is not None]:
            raise InputError(f"--watch: expected --every and nothing else, got {given[0]}")
        usual = 5.0 if console.is_terminal else 30.0
        sys.exit(watch_run(run, usual if every is None else every))
    barred = {
        "--sort": sort, "--pareto": pareto, "--columns": columns, "--repeats": repeats or None,
    }  # fmt: skip
    if correlations and (given := [name for name, value in barred.items() if value is not None]):
        raise InputError(f"--correlations: expected none of {', '.join(barred)}, got {given[0]}")
    found = Run(run)
    table, driver = found.table(repeats=repeats), seen(run)
    table = mark_left(table, left_in(found, driver))
    doubtful = silence(driver) if "running" in set(table["status"]) else []
    legend = found.legend
    chosen = None
    if correlations:
        from launch.show.correlations import correlation_table, print_correlations  # slow: scipy

        table = correlation_table(table, legend, top=top, trust=trust)
        show = partial(print_correlations, console, table)
    else:
        front = front_of(table, legend, pareto=pareto, trust=trust)
        table = select(table, legend, sort=sort, pareto=pareto, top=top, trust=trust)
        chosen = None if columns is None else asked_columns(table, columns)
        show = partial(print_trials, console, table, legend, front, columns=chosen)
    how = _format(format, out)
    if how is Format.table:
        show()
        if not repeats and not correlations and (gaps := gaps_line(found.records)):
            say(gaps)
        for line in doubtful:
            say(line)
        if not correlations:
            say(room_line(run))
    else:
        _print_bytes(write_trials(table if chosen is None else table[chosen], how.value, out))


def watch_run(run: Path, every: float) -> int:
    """Show a search until it is over; return the exit code."""
    code = 0
    live = Live(console=console, auto_refresh=False) if console.is_terminal else nullcontext()
    before = None
    with live as shown:
        for look in looks_at(run, every):
            code = int(look.seen.state == "dead")
            if shown is not None:
                text = Text("\n".join(screen(look, console.height - 1)), overflow="ellipsis")
                text.no_wrap = True
                shown.update(text, refresh=True)
            else:
                news = (len(look.results), look.left, look.seen.state, epochs_of(look))
                if news != before:
                    say(plain(look))
                before = news
    return code


def epochs_of(look: Look) -> frozenset[tuple[int, int]]:
    """Return which trials run, and the epoch of each."""
    return frozenset((row.number, row.epoch) for row in look.seen.rows)


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
