"""The run's journal as a storage of Optuna's, at a cost a trial that does not grow.

Optuna's own asks a list of all trials for those that wait, at every trial, and makes the choices of
every decision anew for each. What is asked of either is the same.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Iterator
from contextlib import contextmanager
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.storages import JournalStorage
from optuna.storages.journal._storage import JournalStorageReplayResult
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from nas.ledger.journal import ID, TAKEN, Journal

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class LedgerStorage(JournalStorage):
    """A journal's storage for its one writer.

    Args:
        journal: of a run.
    """

    _backend: Journal
    _replay_result: _Replay

    def __init__(self, journal: Journal) -> None:
        self.__setstate__({"_backend": journal})
        self._sync_with_backend()

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        self._replay_result = _Replay(self._worker_id_prefix)

    def get_n_trials(
        self, study_id: int, state: tuple[TrialState, ...] | TrialState | None = None
    ) -> int:
        if state is not None:
            return super().get_n_trials(study_id, state)
        with self._thread_lock:
            self._sync_with_backend()
            return len(self._replay_result._study_id_to_trial_ids[study_id])

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        if states is None or any(state in states for state in FINISHED):
            return super().get_all_trials(study_id, deepcopy, states)
        with self._thread_lock:
            self._sync_with_backend()
            found = self._replay_result.unfinished(study_id)
        trials = [trial for trial in found if trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials


@contextmanager
def together(study: Study) -> Iterator[None]:
    """Write what is told to the study inside at once, where its ledger is a run's journal.

    A process that is killed inside leaves nothing of it.
    """
    storage = study._storage
    if isinstance(storage, LedgerStorage):
        with storage._backend.together():
            yield
    else:
        yield


class _Replay(JournalStorageReplayResult):
    """What the lines so far come to; equal distributions are one object."""

    def __init__(self, worker_id_prefix: str) -> None:
        super().__init__(worker_id_prefix)
        self._open: dict[int, None] = {}  # ids of the trials that are not finished, in order
        self._by_text: dict[str, BaseDistribution] = {}
        self._first: dict[tuple[int, str], BaseDistribution] = {}

    def unfinished(self, study_id: int) -> list[FrozenTrial]:
        """Return the trials that wait or run, by number."""
        self.get_study(study_id)  # or KeyError
        of_study = (i for i in self._open if self._trial_id_to_study_id[i] == study_id)
        return [self._trials[trial_id] for trial_id in of_study]

    def _apply_create_trial(self, log: dict[str, Any]) -> None:
        trial_id = len(self._trials)
        answers = ("distributions", "params")
        super()._apply_create_trial({n: v for n, v in log.items() if n not in answers})
        if trial_id not in self._trials:  # its study was deleted
            return
        trial = self._trials[trial_id]
        trial.distributions = {n: self._shared(t) for n, t in log.get("distributions", {}).items()}
        trial.params = {
            name: trial.distributions[name].to_external_repr(value)
            for name, value in log.get("params", {}).items()
        }
        for name, distribution in trial.distributions.items():
            self._first.setdefault((log["study_id"], name), distribution)
        if not trial.state.is_finished():
            self._open[trial_id] = None
        log[ID] = trial_id

    def _apply_set_trial_param(self, log: dict[str, Any]) -> None:
        trial_id, name = log["trial_id"], log["param_name"]
        if not self._trial_exists_and_updatable(trial_id, log):
            return
        distribution = self._shared(log["distribution"])
        first = self._first.setdefault((self._trial_id_to_study_id[trial_id], name), distribution)
        if first is distribution:
            trial = copy.copy(self._trials[trial_id])
            value = distribution.to_external_repr(log["param_value_internal"])
            trial.params = {**trial.params, name: value}
            trial.distributions = {**trial.distributions, name: distribution}
            self._trials[trial_id] = trial
        else:  # other choices, which Optuna refuses; or numbers of another range
            super()._apply_set_trial_param(log)
        log[TAKEN] = True

    def _apply_set_trial_state_values(self, log: dict[str, Any]) -> None:
        super()._apply_set_trial_state_values(log)
        trial = self._trials.get(log["trial_id"])
        if trial is not None and trial.state.is_finished():
            self._open.pop(log["trial_id"], None)

    def _shared(self, text: str) -> BaseDistribution:
        if text not in self._by_text:
            made = json_to_distribution(text)
            self._by_text[text] = self._by_text.setdefault(distribution_to_json(made), made)
        return self._by_text[text]
