"""Makes Tune forget the trials that are over: the ledger has them.

Tune keeps every trial, asks all of them at every step for one that waits, and writes all of them
to disk now and then and when it ends: 160 MB and a directory each after 6,500.
"""

from __future__ import annotations

import shutil
from typing import Any

import launch.cluster.environment  # isort: skip  # noqa: F401  before ray
from ray.tune.schedulers import FIFOScheduler

MANY = 64  # trials that Tune may hold before those that are over go


class ForgettingScheduler(FIFOScheduler):  # type: ignore[misc]  # ray is half typed
    """First in, first out; what is over is forgotten."""

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Return the next trial to start, or None."""
        forget_finished(getattr(tune_controller, "_tune_controller", tune_controller))
        return super().choose_trial_to_run(tune_controller)


def forget_finished(controller: Any) -> None:
    """Take the trials that are over, and whose actor is gone, from where Tune keeps them.

    Nothing is done before there are :data:`MANY`, so that it costs a trial the same however many
    there were. Their directories on this machine go too.
    """
    trials: list[Any] = controller.get_trials()
    if len(trials) < MANY:
        return
    held = {id(trial) for trial in (*controller._trial_to_actor, *controller.get_live_trials())}
    over = [trial for trial in trials if trial.is_finished() and id(trial) not in held]
    gone = {id(trial) for trial in over}
    trials[:] = [trial for trial in trials if id(trial) not in gone]
    for name in ("_stopped_trials", "_failed_trials", "_trials_to_cache"):
        getattr(controller, name).difference_update(over)
    for trial in over:
        controller._trial_metadata.pop(trial.trial_id, None)
        if trial.local_path:
            shutil.rmtree(trial.local_path, ignore_errors=True)
