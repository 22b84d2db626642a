"""What Tune calls while it runs: passes on to the searcher what Tune tells no searcher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import launch.cluster.environment  # isort: skip  # noqa: F401  before ray
from ray import cloudpickle, tune

from launch.cluster.place import node_of
from launch.cluster.searcher import StudySearcher


class TellSearcher(tune.Callback):  # type: ignore[misc]  # ray is half typed
    """Tells the searcher when a trial begins and what its worker died of."""

    def __init__(self, searcher: StudySearcher) -> None:
        self._searcher = searcher

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Pass on that a worker has taken the trial."""
        worker = trial.temporary_state.ray_actor
        self._searcher.on_begin(trial.trial_id, worker, node_of(worker))

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Let the searcher look after what no worker tells."""
        self._searcher.tick()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Pass on the failure, which Tune has written on this machine's own disk."""
        path = trial.pickled_error_file  # Tune's own getter looks where it syncs to
        error = cloudpickle.loads(Path(path).read_bytes()) if path and Path(path).exists() else None
        self._searcher.on_fault(trial.trial_id, error)


class StopAtFailure(tune.Stopper):  # type: ignore[misc]  # ray is half typed
    """Ends a search that has failed, although a trial may wait for a node that never comes."""

    def __init__(self, searcher: StudySearcher) -> None:
        self._searcher = searcher

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Stop no trial by itself."""
        return False

    def stop_all(self) -> bool:
        """Stop once nothing runs any more."""
        return self._searcher.gives_up
