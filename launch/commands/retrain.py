"""The command ``psinas retrain``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from pydantic import TypeAdapter

from launch.cluster.signals import exit_code
from launch.commands.options import Address, RunArgument, TrialOption
from launch.config.config import Config
from launch.config.documents import assign
from launch.config.sections import Retrain
from launch.config.values import fractions, validated
from launch.runs.retrain import retrain as retrain_trial
from launch.runs.retrained import table_lines
from launch.runs.run import Run
from launch.show.reporter import Reporter
from nas.errors import InputError


def retrain(
    run: RunArgument,
    trial: TrialOption = None,
    best: Annotated[
        str | None, typer.Option(metavar="SCORE", help="The best on it; the winner by default.")
    ] = None,
    scale: Annotated[
        str | None, typer.Option(metavar="KEY=N,...", help="Of the space: filters=32,cells=4.")
    ] = None,
    recipes: Annotated[
        Path | None,
        typer.Option(metavar="FILE.yaml", help="A list of sets of recipe keys; twelve by default."),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="recipe.KEY, data.KEY, held_out, ..."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where to; a directory in RUN/retrain by default."),
    ] = None,
    address: Address = None,
) -> None:
    """Enlarge a trial, train it under several recipes, and attack it on test images.

    Example: psinas retrain runs/cubuk-experiment2 --scale filters=32 --set recipe.epochs=100
    """
    if trial is not None and best is not None:
        raise InputError("expected --trial N or --best SCORE, got both")
    found, report = Run(run), Reporter()
    asked = _asked(found.config, scale, recipes, assignments or [])
    winner = found.trial(trial) if trial is not None else found.best(best)
    row = retrain_trial(found, asked, report, winner=winner, out=out, address=address)
    if row is None:
        sys.exit(exit_code())
    for line in table_lines([row]):
        report.say(line)


def _asked(
    config: Config, scale: str | None, recipes: Path | None, assignments: Sequence[str]
) -> Retrain:
    """Return the configuration's retraining with the command line laid over it."""
    document: dict[str, Any] = (config.retrain or Retrain()).model_dump()
    for assignment in assignments:
        assign(document, assignment)
    if scale is not None:
        document["scale"] = {}
        for part in scale.split(","):
            assign(document["scale"], part.strip(), "--scale")
    if recipes is not None:
        try:
            document["recipes"] = yaml.safe_load(recipes.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            why = " ".join(str(error).split())
            raise InputError(f"--recipes: expected a YAML list, got {recipes}: {why}") from error
        if not isinstance(document["recipes"], list):
            raise InputError(
                f"--recipes: expected a YAML list of sets of recipe keys, got {recipes} with "
                f"{document['recipes']!r}"
            )
    found: Retrain = validated(TypeAdapter(Retrain), fractions(document), "retrain", Retrain)
    return found
