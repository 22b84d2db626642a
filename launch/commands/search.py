"""The command ``psinas search``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from launch.cluster.signals import exit_code
from launch.commands.options import Address, Assignments, Reuse
from launch.config.config import load_config
from launch.config.modules import doubles
from launch.runs.nearby import CONFIG, named_nearby
from launch.runs.retrain import check, retrain
from launch.runs.retrained import table_lines
from launch.runs.searching import search as search_all
from launch.show.reporter import Reporter
from nas.errors import InputError

FAILED = ("error", "oom", "timeout", "diverged", "invalid")
DEFAULT_RUN = Path("runs") / "digits"  # of the search that begins where none is named


def search(
    source: Annotated[
        str | None,
        typer.Argument(metavar="[PRESET|CONFIG.yaml]", help="What to search; digits by default."),
    ] = None,
    assignments: Assignments = None,
    trials: Annotated[int | None, typer.Option(help="How many different trials.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="RUN", help="The run directory; runs/<name> by default.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with RUN; begin it if a source is named.")
    ] = False,
    retry: Annotated[
        str | None,
        typer.Option(
            metavar="STATUS,...",
            help="With --resume: run trials again that ended so: error, oom, timeout, diverged, "
            "invalid or all.",
        ),
    ] = None,
    join: Annotated[
        bool, typer.Option("--join", help="Work on a study that another run directory has begun.")
    ] = False,
    address: Address = None,
    reuse: Reuse = None,
) -> None:
    """Search, train and score; print the trial table and export the winner.

    Example: psinas search digits --set recipe.epochs=4 --trials 8 --out runs/quick
    """
    statuses = _statuses(retry)
    if statuses and not resume:
        raise InputError("--retry: expected --resume beside it, got a new search")
    laid = [*(assignments or []), *([f"trials={trials}"] if trials is not None else [])]
    if source is None and resume:
        path = out or DEFAULT_RUN
        if not (path / CONFIG).exists():
            raise InputError(
                f"--resume: expected a run directory, got {path} without a {CONFIG}; "
                f"{named_nearby(path)}; a search begins with a preset or a CONFIG.yaml"
            )
        source, out = str(path / CONFIG), path
    elif source is not None and (Path(source) / CONFIG).is_file():
        raise InputError(
            f"expected a preset or a YAML file, got the run directory {source}: "
            f"psinas search --resume --out {source} goes on with it"
        )
    config = load_config(source or "digits", laid)
    check(config)
    path = out or Path("runs") / config.name
    report = Reporter()
    for line in doubles(config.model_dump(), config.modules):
        report.say(line)
    keep_trials = not any(a.startswith("trials=") for a in laid)
    searched = search_all(
        config,
        path,
        report,
        resume=resume,
        keep_trials=keep_trials,
        address=address,
        retry=statuses,
        join=join,
        reuse=reuse or [],
    )
    if not searched.whole:
        sys.exit(exit_code())
    if config.retrain is None or searched.winner is None:
        return
    report.say(f"\nretraining trial {searched.winner.number}")
    again = f"psinas search --resume --out {path}"
    winner = searched.winner
    row = retrain(searched.run, config.retrain, report, winner=winner, address=address, again=again)
    if row is None:
        sys.exit(exit_code())
    report.say("")
    for line in table_lines([row]):
        report.say(line)


def _statuses(retry: str | None) -> list[str]:
    """Return the statuses of ``--retry``; ``all`` are all of them."""
    asked = [name.strip() for name in (retry or "").split(",") if name.strip()]
    if asked == ["all"]:
        return list(FAILED)
    if (retry is not None and not asked) or not set(asked) <= set(FAILED):
        raise InputError(f"--retry: expected some of {', '.join(FAILED)}, or all, got {retry!r}")
    return list(dict.fromkeys(asked))
