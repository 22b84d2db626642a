"""The command ``psinas export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launch.commands.options import RunArgument, TrialOption
from launch.runs.export import export_row
from launch.runs.run import Run
from launch.show.console import say
from launch.show.tables import doubt_lines
from nas.errors import InputError
from nas.search.trust import advice, suspicions


def export(
    run: RunArgument,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to.")],
    trial: TrialOption = None,
    best: Annotated[str | None, typer.Option(metavar="SCORE", help="The best on it.")] = None,
) -> None:
    """Write a trial's architecture.json, model.safetensors and model card.

    Example: psinas export runs/digits --best pgd_accuracy --out winner
    """
    if (trial is None) == (best is None):
        raise InputError("expected --trial N or --best SCORE, got both or neither")
    found = Run(run)
    row = found.trial(trial) if trial is not None else found.best(best)
    try:
        export_row(found, row, out)
    except OSError as error:
        raise InputError(f"--out: expected a directory to write, got {out}: {error}") from error
    say(f"trial {row.number} exported to {out}")
    if best is not None:
        winner, direction = {"number": row.number, **row.result}, found.legend.direction(best)
        for line in doubt_lines(found.results, winner, best, direction):
            say(line)
    elif flags := suspicions(row.result["scores"]):
        say(f"trial {row.number} is suspicious: {', '.join(flags)}")
        for line in advice(flags):
            say(f"  {line}")
