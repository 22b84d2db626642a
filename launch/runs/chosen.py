"""Which trials of a finished search are looked at again: the best, the front, or those named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from launch.runs.run import Run
from nas.errors import InputError
from nas.ledger.fronts import pareto_front
from nas.search.trust import suspicions, trusted_first
from nas.search.winners import overruled
from nas.trial.deviations import cautious


@dataclass(frozen=True)
class Chosen:
    """Numbers of trials, best first, and lines on whom the choice left out."""

    numbers: tuple[int, ...]
    notes: tuple[str, ...] = ()


def choose(
    run: Run,
    *,
    top: int | None = None,
    front: bool = False,
    trials: Sequence[int] = (),
    score: str | None = None,
) -> Chosen:
    """Return complete trials of a run.

    A trial with a raised suspicion flag is left out, and said to be, unless every one has some or
    it is named.

    Args:
        run: the search.
        top: so many of the best on the score.
        front: also the Pareto front of the objectives.
        trials: these, and no others.
        score: None is the first objective.

    Raises:
        InputError: trials and another choice, no such trial or score, or none that completed.
    """
    if trials:
        if top is not None or front or score is not None:
            raise InputError("--trials: expected no --top, --front or --best beside it, got some")
        for number in trials:
            if (status := run.trial(number).result["status"]) != "complete":
                raise InputError(f"--trials: expected complete trials, got {number} ({status})")
        return Chosen(tuple(dict.fromkeys(trials)))
    score = score or run.objective
    way = run.legend.direction(score)
    best = run.best(score).number  # refuses what no trial has
    results = run.judged_results
    complete = [r for r in results if r["status"] == "complete" and score in r["scores"]]
    winner = next(r for r in complete if r["number"] == best)
    believed = trusted_first(complete)
    sign = 1 if way == "max" else -1
    ends = np.array([sign * cautious(r["scores"], score, way) for r in believed])
    order = [believed[int(i)]["number"] for i in np.argsort(-ends, kind="stable")]
    numbers = order[:top] if top is not None else []
    if front:
        objectives = run.legend.objectives
        values = [[r["scores"][name] for name in objectives] for r in believed]
        inside = pareto_front(np.array(values), list(objectives.values()))
        on_front = {r["number"] for r, here in zip(believed, inside, strict=True) if here}
        numbers += [n for n in order if n in on_front and n not in numbers]
    left = overruled(results, winner, score, way)
    notes = [
        f"trial {r['number']} scores better than the winner but is suspicious "
        f"({', '.join(suspicions(r['scores']))}): left out; --trials names it"
        for r in left
    ]
    if suspicions(winner["scores"]):
        notes.append("every trial is suspicious: none is left out")
    return Chosen(tuple(numbers), tuple(notes))


def numbers_of(text: str | None) -> tuple[int, ...]:
    """Return the numbers of ``--trials 3,7``.

    Raises:
        InputError: something else.
    """
    if text is None:
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise InputError(f"--trials: expected numbers with commas, got {text!r}")
    return tuple(dict.fromkeys(map(int, parts)))
