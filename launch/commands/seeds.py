"""The command ``psinas seeds``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from launch.cluster.signals import exit_code
from launch.commands.options import Address, RunArgument
from launch.runs.chosen import choose, numbers_of
from launch.runs.run import Run
from launch.runs.seeds import repeat_seeds, seed_lines
from launch.show.outputs import check_file, write_file
from launch.show.reporter import Reporter
from nas.analysis.seed_repeats import REPEAT, fresh_runs
from nas.analysis.seed_repeats import seeds as read_seeds
from nas.ledger.formats import csv_text

TOP, REPEATS = 3, 5


def seeds(
    run: RunArgument,
    top: Annotated[
        int | None, typer.Option(min=1, help=f"So many of the best; {TOP} by default.")
    ] = None,
    front: Annotated[bool, typer.Option("--front", help="The Pareto front.")] = False,
    trials: Annotated[
        str | None, typer.Option(metavar="N,...", help="These trials, and no others.")
    ] = None,
    best: Annotated[
        str | None, typer.Option(metavar="SCORE", help="The best on it; the first objective.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=2, help="Fresh seeds for each.")] = REPEATS,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where to; a directory in RUN/seeds by default."),
    ] = None,
    table: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Also write what came out here.")
    ] = None,
    address: Address = None,
) -> None:
    """Train the best of a search under fresh seeds; say which was luck.

    The same command goes on after an interruption. More seeds or trials later train only what is
    missing.

    Example: psinas seeds runs/digits --top 3 --repeats 5
    """
    if table is not None:
        check_file(table)
    found, report = Run(run), Reporter()
    numbers = numbers_of(trials)
    count = top if top is not None or numbers or front else TOP
    chosen = choose(found, top=count, front=front, trials=numbers, score=best)
    for line in chosen.notes:
        report.say(line)
    again = "psinas " + shlex.join(sys.argv[1:])
    searched = repeat_seeds(
        found, chosen.numbers, repeats, report, out=out, address=address, again=again
    )
    if searched is not None and not searched.whole:
        sys.exit(exit_code())
    fresh = [*fresh_runs(run), *([out] if out is not None else [])]
    score = best or found.objective
    read = read_seeds(run, *fresh, score=score, direction=found.legend.direction(score))
    report.say("")
    varied = [name for name in found.config.vary if name != REPEAT]
    for line in seed_lines(read, score, varied):
        report.say(line)
    if table is not None:
        text = csv_text(read)
        write_file(table, lambda partial: partial.write_bytes(text.encode()))
    if searched is None:
        sys.exit(1)
