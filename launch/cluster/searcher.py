"""Tune's face of ``nas.search``: it suggests, it completes, and it keeps nothing itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray import cloudpickle, tune
from ray.exceptions import RayActorError
from ray.tune.search import Searcher

from launch.cluster.worker import OUTCOME
from launch.config.config import Config
from launch.show.progress import Progress
from nas.errors import WorkerFailure, one_line
from nas.ledger.results import RUNGS
from nas.search.rungs import Rungs
from nas.search.search import Proposal, Search, failure
from nas.search.winners import worth_keeping
from nas.trial.files import drop_weights

MAX_DEATHS = 5  # trials in a row that lost their worker twice: then it is not the architectures


class StudySearcher(Searcher):
    """Hands Tune what the search proposes, and the search what came of it."""

    def __init__(
        self,
        search: Search,
        config: Config,
        run: Path,
        progress: Progress,
        rungs: Rungs | None = None,
    ) -> None:
        super().__init__()
        self._search: Search | None = search
        self._rungs = rungs
        self._config, self._run, self._progress = config, run, progress
        self._numbers: dict[str, int] = {}
        self._first_deaths: dict[str, str] = {}
        self._deaths_in_a_row = 0
        self.failure: Exception | None = None
        self._kept: list[Mapping[str, Any]] = []
        self._keep(search.results())

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles the searcher for its own restore, which we never use: the ledger is the truth
        left_out = ("_search", "_progress", "_rungs", "failure")
        return {**self.__dict__, **dict.fromkeys(left_out)}

    def set_search_properties(self, *arguments: Any, **more: Any) -> bool:
        """Say that this searcher owns its objectives."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Return what travels to a worker, or ``Searcher.FINISHED``."""
        assert self._search is not None
        try:
            proposal = None if self.failure else self._search.propose()
        except Exception as error:  # noqa: BLE001  Tune would swallow it: raised after the run
            self.failure = error
            proposal = None
        if proposal is None:
            finished: str = Searcher.FINISHED
            return finished
        self._numbers[trial_id] = proposal.number
        self._progress.started(proposal, self._search)
        return to_worker(proposal)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Write what became of a trial; without an outcome it stays RUNNING, for a resume."""
        assert self._search is not None
        number = self._numbers.pop(trial_id, None)
        if number is None:
            return
        try:
            outcome = self._outcome(trial_id, result, error)
            if outcome is not None:
                if self._rungs is not None:
                    outcome = {**outcome, RUNGS: self._rungs.reached(number)}
                written = self._search.finish(number, outcome)
                self._progress.finished(number, written, self._search)
                self._keep([*self._kept, {"number": number, **written}])
        except Exception as problem:  # noqa: BLE001  Tune would swallow it: raised after the run
            self.failure = problem

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the ledger is on disk already."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the ledger is the truth."""

    def note_first_failure(self, trial_id: str, error: Exception | None) -> None:
        """Tell a worker's death, which Tune answers with one more try, from a fault that stays."""
        if error is None or isinstance(error, RayActorError):
            self._first_deaths[trial_id] = "unknown" if error is None else one_line(error)
        else:  # our own code raised outside the trial: a full disk, a module that is not there
            cause = getattr(error, "cause", None) or error
            self.failure = WorkerFailure(f"a worker cannot go on: {one_line(cause)}")

    def _outcome(
        self, trial_id: str, result: dict[str, Any] | None, error: bool
    ) -> Mapping[str, Any] | None:
        if error:
            self._deaths_in_a_row += 1
            if self._deaths_in_a_row >= MAX_DEATHS and self.failure is None:
                self.failure = WorkerFailure(
                    f"{MAX_DEATHS} trials in a row lost their worker twice: too little memory?"
                )
            if self.failure is not None:
                return None
            first = self._first_deaths.get(trial_id, "unknown")
            return failure("error", f"the worker died twice: {first}")
        if not result or not result.get("done"):
            return None  # interrupted
        self._deaths_in_a_row = 0
        if OUTCOME in result:
            outcome: dict[str, Any] = json.loads(result[OUTCOME])
            return outcome
        return self._stopped(result)

    def _stopped(self, result: Mapping[str, Any]) -> Mapping[str, Any]:
        scheduler = self._config.scheduler
        assert scheduler is not None  # nothing else ends a trial before its outcome
        values = ", ".join(f"{name} {result[name]:.4f}" for name in scheduler.metrics)
        reason = f"{scheduler.name} after epoch {result['epoch']} at {values}"
        return {
            **failure("stopped", reason),
            "stopped_by": list(scheduler.metrics),
            "epochs": int(result["epoch"]),
            "seconds": result["time_total_s"],
        }

    def _keep(self, results: Sequence[Mapping[str, Any]]) -> None:
        """Delete the weights of those results that are not worth keeping."""
        config = self._config
        self._kept = worth_keeping(results, config.objectives, config.keep.top)
        kept = {r["number"] for r in self._kept}
        drop_weights(self._run, {r["number"] for r in results} - kept)


class NoteFailures(tune.Callback):
    """Tells the searcher what a worker died of: Tune tells it only that it did."""

    def __init__(self, searcher: StudySearcher) -> None:
        self._searcher = searcher

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Pass on the first failure; Tune then runs the trial once more."""
        path = (
            trial.pickled_error_file
        )  # on this machine; Tune's own getter looks where it syncs to
        error = cloudpickle.loads(Path(path).read_bytes()) if path and Path(path).exists() else None
        self._searcher.note_first_failure(trial.trial_id, error)


def to_worker(proposal: Proposal) -> dict[str, Any]:
    """Return the plain dict that a worker makes the trial from."""
    return {
        "number": proposal.number,
        "architecture": proposal.trial.architecture.to_dict(),
        "overrides": dict(proposal.overrides),
    }
