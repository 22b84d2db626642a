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
from nas.export.formats import ALL, known_formats
from nas.search.trust import advice, suspicions


def export(
    run: RunArgument,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to.")],
    trial: TrialOption = None,
    best: Annotated[str | None, typer.Option(metavar="SCORE", help="The best on it.")] = None,
    formats: Annotated[
        str | None,
        typer.Option(
            metavar="A,B", help="Of onnx, program, python; weights alone. All by default."
        ),
    ] = None,
    robustbench: Annotated[
        bool, typer.Option("--robustbench", help="Also what RobustBench evaluates.")
    ] = False,
    licence: Annotated[
        str | None, typer.Option(metavar="SPDX", help="Of the weights, such as MIT.")
    ] = None,
) -> None:
    """Write a trial's weights, ONNX, program, model.py and model card, each held against the model.

    A format that cannot be written, or is not the model, is left out and said. The exit code is 1
    where --formats or --robustbench named it.

    Example: psinas export runs/digits --best pgd_accuracy --out winner
    """
    if (trial is None) == (best is None):
        raise InputError("expected --trial N or --best SCORE, got both or neither")
    names = ALL if formats is None else known_formats([n.strip() for n in formats.split(",")])
    if robustbench and "python" not in names:
        names = (*names, "python")  # the wrapper loads the model from it
    found = Run(run)
    row = found.trial(trial) if trial is not None else found.best(best)
    try:
        exported = export_row(
            found, row, out, formats=names, licence=licence, robustbench=robustbench
        )
    except OSError as error:
        raise InputError(f"--out: expected a directory to write, got {out}: {error}") from error
    also = f" with {', '.join(exported.formats)}" if exported.formats else ""
    say(f"trial {row.number} exported to {out}{also}")
    for line in exported.left_out:
        say(line)
    if best is not None:
        winner, direction = {"number": row.number, **row.result}, found.legend.direction(best)
        for line in doubt_lines(found.results, winner, best, direction):
            say(line)
    elif flags := suspicions(row.result["scores"]):
        say(f"trial {row.number} is suspicious: {', '.join(flags)}")
        for line in advice(flags):
            say(f"  {line}")
    if exported.left_out and (formats is not None or robustbench):
        raise typer.Exit(1)
