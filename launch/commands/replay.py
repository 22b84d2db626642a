"""The command ``psinas replay``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from launch.commands.options import RunArgument
from launch.runs.replay import later
from launch.runs.replay import replay as again
from launch.runs.run import Run
from launch.show.columns import beside
from launch.show.console import say
from nas.trial.scoring import SECONDS


def replay(
    run: RunArgument,
    trial: Annotated[int, typer.Option(help="The number of the trial.")],
) -> None:
    """Train and score a trial again on the CPU, outside Ray; exit 1 where a number differs.

    Example: psinas replay runs/digits --trial 3
    """
    row, evaluation, different = again(Run(run), trial)
    say(f"trial {row.number}: {evaluation.status}")
    rows = {}
    for name, stored in row.result["scores"].items():
        equal = "(time)" if name.endswith(SECONDS) else "equal"
        if later(name, row.result["scores"], evaluation.scores):
            equal = "(defined anew)"
        mark = "differs" if name in different else equal
        rows[name] = (repr(stored), repr(evaluation.scores.get(name)), mark)
    for line in beside(rows):
        say(line)
    if different:
        say(f"expected equal numbers, got others for {', '.join(different)}")
        sys.exit(1)
    say("equal to the last digit")
