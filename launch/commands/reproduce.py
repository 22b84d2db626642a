"""The command ``psinas reproduce``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from launch.cluster.elsewhere import on_worker
from launch.cluster.signals import exit_code
from launch.commands.options import Address, Assignments, Reuse
from launch.config.config import Config
from launch.config.sections import Resources
from launch.papers.registry import REPRODUCTIONS, reproduction
from launch.papers.reproduction import Reproduction
from launch.papers.there import view_there
from launch.runs.begin import check_begun
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
    reuse: Reuse = None,
) -> None:
    """Run a paper's searches, or go on with them; print its table beside ours, and draw it.

    Example: psinas reproduce psi-figure7 --quick --data fashion-mnist
    """
    if (name is None) != everything:
        raise InputError("expected the name of a reproduction or --all, got both or neither")
    if everything and (given := [n for n, v in {"--out": out, "--data": data}.items() if v]):
        raise InputError(f"--all: expected no {given[0]}: each has its own")
    names = list(REPRODUCTIONS) if name is None else [name]
    planned = []
    for each in names:  # all is checked before anything is searched
        asked = reproduction(each)
        configs = asked.configs(asked.sources(quick=quick, data=data), assignments or [])
        places = [_place(config, out, alone=len(configs) == 1) for config in configs]
        for number, (config, place) in enumerate(zip(configs, places, strict=True)):
            for wanted in asked.retrainings(number, config):
                check(config, wanted)
            check_begun(place, config)
        directory = _directory(each, places, out)
        planned.append((each, asked, list(zip(configs, places, strict=True)), directory))
    for each, asked, searches, directory in planned:
        _reproduce(each, asked, searches, directory, address, Reporter(), reuse or [])


def _place(config: Config, out: Path | None, *, alone: bool) -> Path:
    """Return the run directory of a search."""
    if out is None:
        return Path("runs") / config.name
    return out if alone else out / config.name


def _directory(name: str, places: Sequence[Path], out: Path | None) -> Path:
    """Return where the table and the picture go: of no searches, a directory of their own.

    Raises:
        InputError: one that cannot be written.
    """
    if places:
        return places[0] if len(places) == 1 else places[0].parent
    directory = Path("runs") / name if out is None else out
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--out: expected a directory to write, got {directory}: {error}"
        ) from error
    return directory


def _reproduce(
    name: str,
    asked: Reproduction,
    searches: Sequence[tuple[Config, Path]],
    directory: Path,
    address: str | None,
    report: Reporter,
    reuse: Sequence[Path],
) -> None:
    runs = []
    again = f"psinas reproduce {name} with the options that were given"
    for number, (config, place) in enumerate(searches):
        if len(searches) > 1:
            report.say(f"\n{config.name}, in {place}")
        searched = search(
            config,
            place,
            report,
            resume=True,
            keep_trials=True,
            address=address,
            again=again,
            reuse=[path for path in reuse if path.resolve() != place.resolve()],
        )
        if not searched.whole:
            sys.exit(exit_code())
        for wanted in asked.retrainings(number, config):
            if (winner := searched.winner) is None:
                continue
            changed = "" if wanted is config.retrain else f", with {dict(asked.also[number])}"
            report.say(f"\n{config.name}: retraining trial {winner.number}{changed}")
            row = retrain(searched.run, wanted, report, winner=winner, address=address, again=again)
            if row is None:
                sys.exit(exit_code())
        runs.append(Run(place))
    if address is None:
        view = asked.view(runs, report)
    else:
        resources = searches[0][0].resources if searches else Resources()
        paths = [place for _, place in searches]
        view = on_worker(address, resources, view_there, name, paths, say=report.say)
    report.say(f"\n{name}: {asked.about}")
    for line in view.lines:
        report.say(line)
    table, picture = write_view(directory, name, view)
    report.say(f"table in {table}, picture in {picture}")
