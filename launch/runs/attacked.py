"""A search's front and winner under attack on validation images, for a report.

They cost attacks, so that they are measured within a number of seconds, on as many images as fit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from launch.runs.asked import Asked, Curve
from launch.runs.pictured import Examples
from launch.runs.run import FinishedTrial, Run
from nas.data.arrays import Split
from nas.device import threads
from nas.errors import InputError, first_line
from nas.ledger.fronts import pareto_front
from nas.trial.files import WEIGHTS, trial_directory

FEWEST, TRIALS = 3, 6  # of the front, the winner among them; fewer are filled up


@dataclass(frozen=True)
class Attacked:
    """What the models of a run answered under attack.

    Attributes:
        winner: its number, None where nothing has completed.
        curves: of the front, the winner first.
        examples: of the winner, None where there are none.
        said: what is missing and why, a sentence each.
        seconds: that this call took.
    """

    winner: int | None = None
    curves: tuple[Curve, ...] = ()
    examples: Examples | None = None
    said: tuple[str, ...] = ()
    seconds: float = field(default=0.0, compare=False)


def attacked(run: Run, *, seconds: float) -> Attacked:
    """Attack the winner and the front of a run, or read what was kept of it.

    Args:
        run: whose.
        seconds: at most so many are spent on attacks.
    """
    try:
        winner, front = front_of(run)
    except InputError as error:
        return Attacked(said=(f"No model was asked: {error}.",))
    rows = [row for row in front if _kept(run, row.number)]
    said = []
    if gone := [str(row.number) for row in front if row not in rows]:
        more = f" and {len(gone) - TRIALS} more" if len(gone) > TRIALS else ""
        said.append(
            f"Weights of trial{'s' * (len(gone) > 1)} {', '.join(gone[:TRIALS])}{more} were not "
            "kept: "
            "`psinas replay RUN --trial N` trains them again."
        )
    if len(rows) > TRIALS:
        said.append(f"Of {len(rows)} trials on the front, {TRIALS} were attacked.")
        rows = rows[:TRIALS]
    if len(rows) < FEWEST:
        rows += _next_best(run, [row.number for row in front])[: FEWEST - len(rows)]
    curves: list[Curve] = []
    examples, spent = None, 0.0
    held: dict[str, tuple[Split, tuple[str, ...]]] = {}
    for place, row in enumerate(rows):
        try:
            asked = Asked(run, row, held)
            with threads(run.config.resources.cpu):
                if row.number == winner.number:
                    examples = asked.examples(seconds)
                rest = seconds - spent - asked.spent
                curve = asked.curve(rest / (min(2, len(rows)) if not place else len(rows) - place))
        except (InputError, OSError, ValueError, RuntimeError) as error:
            said.append(f"Trial {row.number} was not attacked: {first_line(error)}.")
            continue
        spent += asked.spent
        if curve is None:
            said.append(
                f"Trial {row.number} was not attacked: {seconds:g} seconds were too few, "
                "--seconds gives more."
            )
        else:
            curves.append(curve)
    return Attacked(winner.number, tuple(curves), examples, tuple(said), spent)


def front_of(run: Run) -> tuple[FinishedTrial, list[FinishedTrial]]:
    """Return the winner of a run, and the trials of its front, the winner first.

    Raises:
        InputError: nothing has completed, or code that the user has not said yes to.
    """
    winner = run.best()
    objectives = run.legend.objectives
    complete = [r for r in run.results if r["status"] == "complete" and r["repeat_of"] is None]
    values = [[r["scores"].get(name, math.nan) for name in objectives] for r in complete]
    inside = pareto_front(values, list(objectives.values()))
    numbers = [r["number"] for r, on in zip(complete, inside, strict=True) if on]
    others = [run.trial(number) for number in numbers if number != winner.number]
    return winner, [winner, *others]


def _next_best(run: Run, but: Sequence[int]) -> list[FinishedTrial]:
    """Return further trials with weights, the best on the first objective first."""
    sign = 1 if run.legend.direction(run.objective) == "max" else -1
    found = [
        (sign * r["scores"].get(run.objective, math.nan), r["number"])
        for r in run.results
        if r["status"] == "complete" and r["number"] not in but and _kept(run, r["number"])
    ]
    ranked = sorted((pair for pair in found if math.isfinite(pair[0])), reverse=True)
    return [run.trial(number) for _, number in ranked]


def _kept(run: Run, number: int) -> bool:
    return (trial_directory(run.path, number) / WEIGHTS).exists()
