"""The ledger of a search as its driver keeps it: who has ended with what, and writing it down.

What is private goes by Optuna's numbers; others see places among the different trials
(:mod:`nas.search.places`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from nas.ledger.journal_storage import together
from nas.ledger.results import ORDER, RESULT, place_of, reached_rungs
from nas.search.blame import blaming
from nas.search.places import Places
from nas.search.plan import SearchPlan
from nas.trial.trial import Trial


class Books:
    """The outcomes of a search, in memory and in its study.

    Args:
        study: of the run.
        plan: what to do.
    """

    def __init__(self, study: Study, plan: SearchPlan) -> None:
        self.plan = plan
        self.study = study
        self.running: dict[int, Trial] = {}
        self._places = Places(study)
        self._finished: dict[str, FrozenTrial] = {}
        self._ended = 0  # the next outcome's place in the order of their ends

    @property
    def finished(self) -> int:
        """How many different trials have an outcome."""
        return len(self._finished)

    def results(self) -> list[dict[str, Any]]:
        """Return what the ledger holds of every different finished trial, by number."""
        results = [
            {"number": place_of(t.number, t.user_attrs), **t.user_attrs[RESULT]}
            for t in self._finished.values()
        ]
        return sorted(results, key=lambda result: int(result["number"]))

    def params(self, number: int) -> dict[str, Any]:
        """Return the answers of a trial."""
        trial_id = self._id(self._places.number(number))
        return dict(self.study._storage.get_trial(trial_id).params)

    def _write(self, number: int, outcome: dict[str, Any]) -> None:
        named = {n: v for n, v in outcome["architecture"].items() if n == "hash"}  # else: decisions
        place = self._places.at(number)
        shown = outcome["repeat_of"] if place is None else place
        with together(self.study), blaming(self.plan.sampler, self.study.sampler, shown):
            # Not through optuna.Trial, which would ask the sampler for another proposal first.
            written = {**outcome, "architecture": named, ORDER: self._ended}
            self._ended += 1
            self.study._storage.set_trial_user_attr(self._id(number), RESULT, written)
            self._tell(number, outcome)

    def _tell(self, number: int, outcome: Mapping[str, Any]) -> None:
        # Optuna's exhaustive samplers stop the loop that they are in; here is none.
        self.study.stop = _go_on  # type: ignore[method-assign]
        status = outcome["status"]
        if status == "complete":
            values = [outcome["scores"][name] for name in self.plan.objectives]
            self.study.tell(number, values)
        elif status == "stopped" and len(self.plan.objectives) == 1:
            self._report(number, outcome)
            self.study.tell(number, state=TrialState.PRUNED)
        else:
            self.study.tell(number, state=TrialState.FAIL)
        self._remember(self.study._storage.get_trial(self._id(number)))  # not tell's own deep copy

    def _report(self, number: int, outcome: Mapping[str, Any]) -> None:
        """Tell Optuna what a stopped trial had at its rungs, where it can read that.

        It has room for one number a rung, which it takes for the objective's: so only beside an
        objective that is maximised, as the accuracies of the rungs are.
        """
        if list(self.plan.objectives.values()) != ["max"]:
            return
        told = self.study._storage.get_trial(self._id(number)).intermediate_values
        for epoch, values in reached_rungs(outcome).items():
            if epoch not in told:  # by a driver that was killed here
                self._open(number).report(values[outcome["stopped_by"][0]], epoch)

    def _remember(self, trial: FrozenTrial) -> None:
        result = trial.user_attrs.get(RESULT)
        if result is not None and result["repeat_of"] is None:
            self._finished[result["key"]] = trial

    def _open(self, number: int) -> optuna.Trial:
        return optuna.Trial(self.study, self._id(number))

    def _id(self, number: int) -> int:
        storage = self.study._storage
        return storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number)

    def _next_number(self) -> int:
        return self.study._storage.get_n_trials(self.study._study_id)


def _go_on() -> None:
    """Stand in for ``Study.stop``, which is refused outside ``Study.optimize``."""


def failure(status: str, reason: str) -> dict[str, Any]:
    """Return the outcome of a trial that never reported one."""
    return {"status": status, "reason": reason, "scores": {}}
