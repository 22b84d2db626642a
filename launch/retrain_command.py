"""The command ``psinas retrain``, and what follows a search that asks for it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from launch.console import say
from nas.errors import InputError

if TYPE_CHECKING:
    from launch.config import Config
    from launch.retrain import Row
    from launch.sections import Retrain


def retrain(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    trial: Annotated[int | None, typer.Option(help="The number of the trial.")] = None,
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
        Path | None, typer.Option(metavar="DIR", help="Where to; RUN/retrain by default.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="A running Ray cluster: auto or HOST:PORT.")
    ] = None,
) -> None:
    """Enlarge a trial, train it under several recipes, and attack it on test images.

    Example: psinas retrain runs/cubuk-experiment2 --scale filters=32 --set recipe.epochs=100
    """
    from launch import retrain as retraining
    from launch.run import best_trial, finished_trial, load_run_config

    if trial is not None and best is not None:
        raise InputError("expected --trial N or --best SCORE, got both")
    config = load_run_config(run)
    asked = _asked(config, scale, recipes, assignments or [])
    first = next(iter(config.objectives))
    winner = finished_trial(run, trial) if trial is not None else best_trial(run, best or first)
    row = retraining.retrain(run, asked, winner=winner, out=out, address=address)
    if row is None:
        say("stopped; the same command goes on")
        sys.exit(130)
    rows = [row, *_others(run, asked)]
    for line in retraining.table_lines(rows):
        say(line)


def with_laid(config: Config, assignments: Sequence[str]) -> Config:
    """Return the configuration that remembers what was laid over it, for those beside it."""
    if config.retrain is None:
        return config
    own = [a for a in assignments if not a.startswith(("name=", "retrain."))]
    laid = list(dict.fromkeys([*config.retrain.laid, *own]))
    retrain = config.retrain.model_copy(update={"laid": laid})
    return config.model_copy(update={"retrain": retrain})


def searches_beside(config: Config, run: Path) -> list[Config]:
    """Return the searches whose winners stand beside this one's; all is checked beforehand.

    Raises:
        InputError: a preset that does not exist, a setting of ``retrain`` that is refused, or a
            search beside that was begun with another configuration.
    """
    from launch.config import differing_keys, load_config
    from launch.retrain import check
    from launch.run import CONFIG, load_run_config

    if config.retrain is None:
        return []
    others = [load_config(source, config.retrain.laid) for source in config.retrain.beside]
    names = [config.name, *(other.name for other in others)]
    if len(set(names)) < len(names):
        raise InputError(f"retrain.beside: expected searches of different names, got {names}")
    for each in (config, *others):
        check(each)
    for other in others:
        begun = run.parent / other.name
        if (begun / CONFIG).exists() and (
            different := differing_keys(load_run_config(begun), other)
        ):
            raise InputError(
                f"retrain.beside: {begun} was begun with other values for {', '.join(different)}: "
                "expected the same as here; --out DIR/NAME puts this search elsewhere"
            )
    return others


def retrain_after_search(
    config: Config, run: Path, others: Sequence[Config], *, address: str | None
) -> bool:
    """Retrain the winner of a finished search, and those of ``others``; False: interrupted."""
    from launch.retrain import retrain, table_lines
    from launch.run import best_trial
    from launch.searching import search_and_report
    from launch.sections import Retrain

    rows: list[Row] = []
    for each, where in [(config, run), *((other, run.parent / other.name) for other in others)]:
        if each is not config:
            say(f"\nbeside {config.name}: {each.name}, in {where}")
            if not search_and_report(each, where, resume=True, keep_trials=True, address=address):
                return False
        winner = best_trial(where, next(iter(each.objectives)))
        say(f"\n{each.name}: trial {winner.number}, retrained")
        asked = each.retrain or Retrain()
        row = retrain(where, asked, winner=winner, out=None, address=address)
        if row is None:
            say(f"stopped; go on with: psinas search --resume --out {run}")
            return False
        rows.append(row)
    say("")
    for line in table_lines(rows):
        say(line)
    return True


def _asked(
    config: Config, scale: str | None, recipes: Path | None, assignments: Sequence[str]
) -> Retrain:
    """Return the configuration's retraining with the command line laid over it."""
    from pydantic import TypeAdapter

    from launch.config import assign
    from launch.sections import Retrain
    from launch.values import fractions, validated

    document: dict[str, Any] = (config.retrain or Retrain()).model_dump()
    for assignment in assignments:
        assign(document, assignment)
    if scale is not None:
        document["scale"] = {}
        for part in scale.split(","):
            assign(document["scale"], part.strip())
    if recipes is not None:
        try:
            document["recipes"] = yaml.safe_load(recipes.read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            why = " ".join(str(error).split())
            raise InputError(f"--recipes: expected a YAML list, got {recipes}: {why}") from error
    found: Retrain = validated(TypeAdapter(Retrain), fractions(document), "retrain", Retrain)
    return found


def _others(run: Path, asked: Retrain) -> list[Row]:
    """Return the rows of those beside that have been retrained."""
    from launch.retrain import saved_row

    found = [saved_row(run.parent / name) for name in asked.beside]
    return [row for row in found if row is not None]
