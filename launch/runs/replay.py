"""A trial trained and scored again outside Ray, to be held against its row."""

from __future__ import annotations

import math
from collections.abc import Mapping

from launch.runs.run import FinishedTrial, Run
from nas.data.datasets import load_as_before
from nas.device import choose_device
from nas.errors import InputError
from nas.search.trust import BEGIN
from nas.trial.evaluation import Evaluation, evaluate
from nas.trial.files import WEIGHTS, save_trial, trial_directory
from nas.trial.scoring import SECONDS

OF_INTERVALS = ("_accuracy_stderr", "_accuracy_low", "_accuracy_high")


def replay(run: Run, number: int) -> tuple[FinishedTrial, Evaluation, list[str]]:
    """Train and score a finished trial again outside Ray, on the kind of device that it ran on.

    Weights that the search did not keep are written again where every number came out equal.

    Returns:
        The row, the new evaluation, and the names of the scores that differ (times aside).

    Raises:
        InputError: no such trial, one that never ran to its end, data that have changed since, or
            a device that is not here.
    """
    row = run.trial(number)
    if row.result["status"] in ("stopped", "timeout") or "environment" not in row.result:
        raise InputError(
            f"--trial: expected one that ran to its end, got {number}: {row.result['reason']}"
        )
    environment = row.result["environment"]
    if environment["device"] == "cuda" != choose_device():
        raise InputError(
            f"trial {number} ran on {environment['device_name']}: expected a GPU here, got none "
            "(other devices add in another order, so the numbers would differ)"
        )
    images = load_as_before(row.trial.data, run.checksums, test=False)
    evaluation = evaluate(
        row.trial,
        images,
        device=environment["device"],
        threads=environment["threads"],
        micro_batch=row.result.get("micro_batch"),
    )
    old, new = row.result["scores"], evaluation.scores
    different = [
        name
        for name in dict.fromkeys([*old, *new])
        if not name.endswith(SECONDS)
        and not later(name, old, new)
        and not _same(old.get(name), new.get(name))
    ]
    if row.result["status"] != evaluation.status:
        different.insert(0, "status")
    weights = trial_directory(run.path, row.number) / WEIGHTS
    if not different and evaluation.weights is not None and not weights.exists():
        save_trial(run.path, row.number, row.trial, evaluation)
    return row, evaluation, different


def later(name: str, old: Mapping[str, float], new: Mapping[str, float]) -> bool:
    """Whether ``old`` is from before there was this number, and cannot have it.

    Before accuracies had intervals, standard errors were sqrt(p (1 - p) / n); flags came by and by.
    """
    if BEGIN in name:
        return name not in old and any(BEGIN in other for other in old)
    low = f"{name.rpartition('_')[0]}_low"
    return name.endswith(OF_INTERVALS) and low in new and low not in old


def _same(a: float | None, b: float | None) -> bool:
    return a == b or (a is not None and b is not None and math.isnan(a) and math.isnan(b))
