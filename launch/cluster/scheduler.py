"""Tune's face of ``nas.search.rungs``: a trial's epochs come in, CONTINUE or STOP goes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import launch.cluster.environment  # isort: skip  # noqa: F401  before ray
from ray.tune.schedulers import TrialScheduler

from launch.cluster.forgetting import ForgettingScheduler
from launch.cluster.worker import OF, SPENT
from launch.config.config import Config
from launch.config.sections import Scheduler
from nas.ledger.results import RUNGS
from nas.search.books import failure
from nas.search.rungs import Rungs, rung_epochs
from nas.search.search import Search
from nas.trial.state import better_scores
from nas.trial.training import EPOCH_SCORES


def open_rungs(config: Config, search: Search) -> Rungs | None:
    """Return the search's rungs, filled from its ledger; None without a scheduler."""
    scheduler = config.scheduler
    if scheduler is None:
        return None
    longest = max(search.plan.recipe_values("epochs"))
    rungs = Rungs(
        rung_epochs(scheduler.grace_period, scheduler.reduction_factor, longest),
        dict.fromkeys(scheduler.metrics, "max"),
        scheduler.reduction_factor,
    )
    rungs.refill(search.results())
    return rungs


def reached(config: Config, search: Search, reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the ledger keeps of the rungs of a trial, from the reports of its epochs."""
    rungs = open_rungs(config, search)
    if rungs is None:
        return {}
    values = {report["epoch"]: report for report in reports}
    there = [epoch for epoch in rungs.epochs if epoch in values]
    return {RUNGS: {str(e): better_scores(values[e]) for e in there}}


def stopped(result: Mapping[str, Any], scheduler: Scheduler | None) -> dict[str, Any]:
    """Return the outcome of a trial that the scheduler stopped, from the report of its last epoch.

    Args:
        result: Tune's.
        scheduler: of the configuration; nothing else ends a trial before its outcome.
    """
    assert scheduler is not None
    values = ", ".join(f"{name} {result[name]:.4f}" for name in scheduler.metrics)
    reason = f"{scheduler.name} after epoch {result['epoch']} at {values}"
    return {
        **failure("stopped", reason),
        "stopped_by": list(scheduler.metrics),
        "epochs": int(result["epoch"]),
        "seconds": result["time_total_s"] + result.get(SPENT, 0.0),
    }


class RungScheduler(ForgettingScheduler):
    """Stops a trial at a rung; Tune asks it after every epoch but a trial's last.

    One whose training ended early is noted at a rung that it ends at, and is not stopped.

    Args:
        rungs: of the search; the searcher takes from them what it writes to the ledger.
    """

    def __init__(self, rungs: Rungs) -> None:
        super().__init__()
        self._rungs = rungs

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Note what a trial has reached, and say whether it goes on."""
        number, epoch, last = trial.config["number"], result["epoch"], result["epochs"]
        values: dict[str, float] = {name: float(result[name]) for name in EPOCH_SCORES}
        goes_on = self._rungs.arrive(number, epoch, values, last)
        ended = result.get(OF) == epoch  # early: its scores are all that is left
        decision: str = TrialScheduler.CONTINUE if goes_on or ended else TrialScheduler.STOP
        return decision

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Forget a trial whose worker died: it begins again, or ends without an outcome."""
        self._rungs.forget(trial.config["number"])
