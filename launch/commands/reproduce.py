"""The command ``psinas reproduce``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from launch.commands.options import Address, Assignments
from launch.papers.registry import REPRODUCTIONS, reproduction
from launch.papers.reproduction import Reproduction
from launch.runs.retrain import check, retrain
from launch.runs.run import Run
from launch.runs.searching import search
from launch.show.reporter import Reporter
from launch.show.view import write_view
from nas.errors import InputError


def reproduce(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A table or figure of a paper.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every one there is.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="In small: minutes on two cores, not a day on a GPU.")
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of --quick: digits, fashion-mnist or food101-10."),
    ] = None,
    assignments: Assignments = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="The run directory; of several searches the directory that holds theirs. "
            "By default runs/<preset>.",
        ),
    ] = None,
    address: Address = None,
) -> None:
    """Run a paper's searches, or go on with them; print its table beside ours, and draw it.

    Example: psinas reproduce psi-figure7 --quick --data fashion-mnist
    """
    if (name is None) != everything:
        raise InputError("expected the name of a reproduction or --all, got both or neither")
    if everything and (given := [n for n, v in {"--out": out, "--data": data}.items() if v]):
        raise InputError(f"--all: expected no {given[0]}: each has its own")
    names = list(REPRODUCTIONS) if name is None else [name]
    for each in names:
        asked = reproduction(each)
        sources = asked.sources(quick=quick, data=data)
        _reproduce(each, asked, sources, assignments or [], out, address, Reporter())


def _reproduce(
    name: str,
    asked: Reproduction,
    sources: tuple[str, ...],
    assignments: list[str],
    out: Path | None,
    address: str | None,
    report: Reporter,
) -> None:
    configs = asked.configs(sources, assignments)
    runs = []
    for config in configs if asked.retrained else ():
        check(config)
    for config in configs:
        place = Path("runs") / config.name
        if out is not None:
            place = out / config.name if len(configs) > 1 else out
        again = " ".join(["psinas reproduce", name, "with the options that were given"])
        if len(configs) > 1:
            report.say(f"\n{config.name}, in {place}")
        searched = search(
            config, place, report, resume=True, keep_trials=True, address=address, again=again
        )
        if not searched.whole:
            sys.exit(130)
        if asked.retrained and config.retrain is not None and searched.winner is not None:
            report.say(f"\n{config.name}: retraining trial {searched.winner.number}")
            row = retrain(
                searched.run,
                config.retrain,
                report,
                winner=searched.winner,
                address=address,
                again=again,
            )
            if row is None:
                sys.exit(130)
        runs.append(Run(place))
    view = asked.view(runs, report)
    report.say(f"\n{name}: {asked.about}")
    for line in view.lines:
        report.say(line)
    directory = runs[0].path if len(runs) == 1 else runs[0].path.parent
    table, picture = write_view(directory, name, view)
    report.say(f"table in {table}, picture in {picture}")
