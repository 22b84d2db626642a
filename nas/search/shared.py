"""A search that several drivers work on at once, each running trials of its own.

They propose in turns, so that every number, duplicate and end of the budget is seen by all. A trial
carries the id of its driver; only what a dead one left is taken over.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from nas.ledger.drivers import DRIVER, Drivers
from nas.ledger.results import PLACE, RESULT, RETRY_OF
from nas.ledger.turns import Turn
from nas.search.plan import SearchPlan
from nas.search.sampling import Proposal
from nas.search.search import Search

TRAINED_IN = "run"
"""Where a result keeps the run directory that has its trial's files."""


class SharedSearch(Search):
    """The state of one search, as one of its drivers sees it.

    Args:
        study: of the run.
        plan: what to do.
        drivers: this one and the others.
        turn: gives this driver its turn.
        pause_seconds: after nothing was left to propose, nobody is asked again for so long.
        died: the driver that had this run before was killed.
    """

    def __init__(
        self,
        study: Study,
        plan: SearchPlan,
        drivers: Drivers,
        turn: Turn,
        *,
        pause_seconds: float = 1.0,
        died: bool = True,
    ) -> None:
        self._drivers, self._turn, self._pause = drivers, turn, pause_seconds
        self._elsewhere: dict[int, str] = {}  # Optuna's number -> key of what other drivers run
        self._keys: dict[int, str] = {}
        self._settled = 0  # all trials before this one have ended
        self._asked = -pause_seconds
        super().__init__(study, plan, died=died)

    def left(self) -> bool:
        """Whether there is anything to propose, or to wait for."""
        with self._turn():
            self._drivers.start()
            self._look()
            return super().left() or self.waits()

    def waits(self) -> bool:
        """Whether other drivers run trials: they end, or are taken over when their driver dies."""
        return bool(self._elsewhere or self._waiting)

    def propose(self) -> Proposal | None:
        """Return the next trial to run, or None: nothing is left, or nothing yet (``waits``)."""
        if time.monotonic() - self._asked < self._pause:
            return None
        with self._turn():
            self._drivers.start()
            self._look()
            proposal = super().propose()
        if proposal is None:
            self._asked = time.monotonic()
        return proposal

    def finish(self, number: int, result: Mapping[str, Any]) -> dict[str, Any]:
        """Write the outcome of a running trial, and where its files are."""
        return super().finish(number, {**result, TRAINED_IN: self._drivers.run})

    def close(self) -> None:
        """Leave the study to the other drivers."""
        self._drivers.leave()

    # ------------------------------------------------------------------------------ the ledger

    def _look(self) -> None:
        """See what the others have done meanwhile; to be called in our turn."""
        trials = self.study.get_trials(deepcopy=False)
        waiting = {number for numbers in self._waiting.values() for number in numbers}
        self._places.note(trials[self._settled :], running=self.running)
        running = {self._places.number(place) for place in self.running}
        self._drivers.look()
        self._orphans, self._elsewhere = [], {}
        for trial in trials[self._settled :]:
            if trial.state.is_finished():
                self._remember(trial)
            elif trial.number in running or trial.number in waiting:
                continue
            elif not self._drivers.gone(self._drivers.owner(trial)):
                self._make_way(trial)
                self._elsewhere[trial.number] = self._key(trial)
            elif RESULT in trial.user_attrs:  # its driver died between the two writes of a finish
                self._tell(trial.number, trial.user_attrs[RESULT])
            else:
                self._make_way(trial)
                self._orphans.append(trial)
        self._retries = sum(RETRY_OF in trial.user_attrs for trial in trials)
        while self._settled < len(trials) and trials[self._settled].state.is_finished():
            self._settled += 1
        for key in [key for key in self._waiting if key in self._finished]:
            for number in self._waiting.pop(key):
                self._repeat(number, key)

    def _mine(self, trial: FrozenTrial) -> bool:
        return self._drivers.owner(trial) == self._drivers.me

    def _key(self, trial: FrozenTrial) -> str:
        """Return the key of another driver's trial; one that died while it was asked has none."""
        if trial.number not in self._keys:
            if not set(self.plan.decisions) <= set(trial.params):
                return f"unknown {trial.number}"
            self._keys[trial.number] = self.plan.trial(trial.params).key
        return self._keys[trial.number]

    def _blamed(self, orphan: FrozenTrial) -> bool:
        owner = self._drivers.owner(orphan)
        return self._died if owner == self._drivers.me else not self._drivers.left(owner)

    def _marks(self) -> dict[str, Any]:
        return {DRIVER: self._drivers.me}

    def _new_trial(self, number: int) -> optuna.Trial:
        attributes = {PLACE: None, **self._marks()}
        mark = optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs=attributes)
        trial_id = self.study._storage.create_new_trial(self.study._study_id, mark)
        return optuna.Trial(self.study, trial_id)

    def retry(self, statuses: Collection[str]) -> int:
        """Run trials again that ended with one of these statuses; return how many."""
        with self._turn():
            self._drivers.start()
            self._look()
            return super().retry(statuses)

    def _adopt(self, orphan: FrozenTrial) -> Proposal | None:
        if self._drivers.owner(orphan) != self._drivers.me:
            self._open(orphan.number).set_user_attr(DRIVER, self._drivers.me)
        return super()._adopt(orphan)

    def _write(self, number: int, outcome: dict[str, Any]) -> None:
        try:
            super()._write(number, outcome)
        except UpdateFinishedTrialError:  # we were taken for dead: what the other wrote stands
            self._remember(self.study._storage.get_trial(self._id(number)))

    def _known(self, proposal: Proposal) -> bool:
        if super()._known(proposal):
            return True
        key = proposal.trial.key
        if key in self._elsewhere.values():
            self._waiting.setdefault(key, []).append(proposal.number)
            return True
        return False

    def _taken(self) -> set[str]:
        return super()._taken() | set(self._elsewhere.values())

    def _enough(self) -> bool:
        if self.plan.trials is None:
            return False
        here = {trial.key for trial in self.running.values()}
        others = set(self._elsewhere.values()) - here - self._finished.keys()
        return len(self._finished) + len(here) + len(others) >= self.plan.trials
