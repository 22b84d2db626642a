"""The command ``psinas judge``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
import yaml

from launch.commands.options import Address, RunArgument
from launch.config.metrics import Entry
from launch.config.values import fractions
from launch.runs.chosen import choose, numbers_of
from launch.runs.judge import judge_trials
from launch.runs.judged import judge_lines
from launch.runs.judges import build_judges
from launch.runs.run import Run
from launch.show.reporter import Reporter
from nas.errors import InputError


def judge(
    run: RunArgument,
    top: Annotated[
        int | None,
        typer.Option(min=1, help="So many of the best; by default those kept, and the front."),
    ] = None,
    front: Annotated[bool, typer.Option("--front", help="The Pareto front.")] = False,
    trials: Annotated[
        str | None, typer.Option(metavar="N,...", help="These trials, and no others.")
    ] = None,
    best: Annotated[
        str | None, typer.Option(metavar="SCORE", help="The best on it; the first objective.")
    ] = None,
    attack: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ATTACK",
            help="A name, or YAML: '{name: apgd, steps: 100}'; may be given several times. "
            "A cascade with Auto-PGD of 100 steps by default; suspicion raises its flags.",
        ),
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="At most so many validation images; all by default.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="At most so many attacks at a time; 1: without Ray.")
    ] = None,
    address: Address = None,
) -> None:
    """Score the best again by stronger attacks; say who wins before the strongest.

    It takes the weights that the search kept, and validation images. The new scores are columns
    judge_... of the trial table. The same command goes on after an interruption.

    Example: psinas judge runs/digits --top 5 --attack '{name: apgd, steps: 200, as: apgd200}'
    """
    found, report = Run(run), Reporter()
    numbers = numbers_of(trials)
    plain = top is None and not numbers and not front
    count = found.config.keep.top if plain else top
    chosen = choose(found, top=count, front=front or plain, trials=numbers, score=best)
    for line in chosen.notes:
        report.say(line)
    judges = build_judges(found.config, [_entry(text) for text in attack or ()], images)
    outcome = judge_trials(
        found, chosen.numbers, judges, report.say, address=address, workers=workers
    )
    for line in judge_lines(Run(run), chosen.numbers, judges, outcome):
        report.say(line)
    if outcome.failed or (outcome.without and not outcome.known + outcome.done):
        sys.exit(1)


def _entry(text: str) -> Entry:
    """Return the metric that an ``--attack`` names."""
    try:
        found = fractions(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise InputError(f"--attack: expected a name or YAML, got {text!r}") from error
    if not isinstance(found, str | dict) or not found:
        raise InputError(f"--attack: expected a name or '{{name: ..., ...}}', got {text!r}")
    return found
