"""One architecture trained under several seeds: what a trial with ``repeats`` above 1 is.

The scores of a single training move with its seed, often by more than two architectures differ. A
trial of n repeats trains and scores its architecture under the seeds of ``repeat`` 0 ... n - 1, one
after another in one process, and answers with one evaluation: the mean of every score under its
name, and the sample deviation under the name and ``_std``. Samplers, schedulers and the ledger see
one trial.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from nas.trial.deviations import DEVIATION, FLAG, FLAG_RAISED, has_deviation
from nas.trial.state import Epoch
from nas.trial.trial import Trial

Result = TypeVar("Result")  # an ``Evaluation``, whose module stands above this one


def repeated(
    run: Callable[[Trial], Generator[Epoch, None, Result]], trial: Trial
) -> Generator[Epoch, None, Result]:
    """Run every repeat of a trial with ``run``, and return the ``Evaluation`` of all of them.

    The epochs of repeat r are numbered from ``r * recipe.epochs + 1`` on. So a scheduler, which
    judges by the epochs below ``recipe.epochs``, sees those of the first repeat alone: it stops a
    trial there or never, and the other repeats are trained for what it let pass. One that ends
    early (``patience``) leaves numbers out.

    The first repeat that fails ends the trial with its status and reason, and says which it was;
    the scores of those before it stay in ``repeats``.

    The weights are those of the repeat whose scores lie nearest the mean (:func:`nearest`): they
    score about as the table says, which the best would not, nor always the first.

    Args:
        run: trains and scores a trial of one repeat, such as ``nas.trial.evaluation.evaluation``
            with its data.
        trial: with ``repeats``; of 1 nothing is added to what ``run`` gives.
    """
    if trial.repeats == 1:
        return (yield from run(trial))
    done: list[Any] = []
    epochs: list[Epoch] = []
    for number in range(trial.repeats):
        steps = run(replace(trial, repeats=1, repeat=trial.repeat + number))
        before = number * trial.recipe.epochs
        where = f"repeat {number} of 0 ... {trial.repeats - 1}"
        while True:
            try:
                epoch = next(steps)
            except StopIteration as end:
                done.append(end.value)
                break
            epochs.append(replace(epoch, epoch=before + epoch.epoch))
            yield epochs[-1]
        if done[-1].status != "complete":
            reason = f"{where}: {done[-1].reason}"
            failed: Result = _joined(done, done[-1], epochs, reason=reason, **NOTHING)
            return failed
    scores = [evaluation.scores for evaluation in done]
    kept = nearest(scores)
    found: Result = _joined(done, done[kept], epochs, scores=mean_scores(scores), kept_repeat=kept)
    return found


NOTHING: dict[str, Any] = {"scores": {}, "weights": None, "last_weights": None}
"""What a trial that failed has of these."""


def _joined(done: Sequence[Any], of: Any, epochs: Sequence[Epoch], **changes: Any) -> Any:
    """Return the evaluation ``of`` one repeat as that of all of them."""
    peaks = [e.peak_memory_bytes for e in done if e.peak_memory_bytes is not None]
    return replace(
        of,
        epochs=tuple(epochs),
        seconds=sum(evaluation.seconds for evaluation in done),
        repeats=tuple(e.scores for e in done if e.status == "complete"),
        peak_memory_bytes=max(peaks, default=None),
        **changes,
    )


def mean_scores(repeats: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of every score that all repeats have, and its deviation after it.

    A suspicion flag that any repeat raised is raised. The deviation is the sample's (n - 1), in the
    unit of its score; ends of intervals, standard errors, times and flags have none.
    """
    scores: dict[str, float] = {}
    for name in repeats[0]:
        if not all(name in of for of in repeats):
            continue
        values = [of[name] for of in repeats]
        raised = FLAG in name and name.endswith(FLAG_RAISED)
        scores[name] = _highest(values) if raised else _mean(values)
        if has_deviation(name):
            scores[name + DEVIATION] = _deviation(values)
    return scores


def nearest(repeats: Sequence[Mapping[str, float]]) -> int:
    """Return the repeat nearest the mean, the earlier of equals.

    Distances are sums over the scores that have a deviation of squares in units of it, so that no
    score's unit counts for more; flags, times and standard errors play no part.
    """
    means = mean_scores(repeats)
    distances = [0.0] * len(repeats)
    for name, mean in means.items():
        deviation = means.get(name + DEVIATION, 0.0)
        if math.isfinite(mean) and math.isfinite(deviation) and deviation > 0:
            for index, of in enumerate(repeats):
                distances[index] += ((of[name] - mean) / deviation) ** 2
    # Two repeats are as far from their mean, but for the last bit: hence rounded.
    return min(range(len(repeats)), key=lambda index: round(distances[index], 9))


def _highest(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return max(known, default=math.nan)


def _mean(values: Sequence[float]) -> float:
    """Return the mean, rounded once: of equal numbers it is that number."""
    if all(map(math.isfinite, values)):
        return float(statistics.mean(values))
    return math.nan


def _deviation(values: Sequence[float]) -> float:
    if all(map(math.isfinite, values)):
        return float(statistics.stdev(values))
    return math.nan
