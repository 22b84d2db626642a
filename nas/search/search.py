"""The search itself, in plain Python: what to try next, and what became of it.

:class:`Search` knows the study, the space and the sampler, and nothing of execution: a driver asks
it for proposals and tells it what came back, in whatever order. It answers duplicates from the
ledger, goes on with what a dead driver left running, and knows when it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from nas.ledger.journal_storage import together
from nas.ledger.results import ORDER, PLACE, RESULT, RETRY_OF, place_of
from nas.search.books import failure
from nas.search.plan import SearchPlan
from nas.search.sampling import Proposal, Sampling
from nas.trial.scoring import not_finite
from nas.trial.trial import Trial

MAX_ATTEMPTS = 3  # drivers that may die while one trial runs, before it runs alone; then as many
ATTEMPTS = "attempts"
KEPT_EPOCHS = "kept_epochs"  # of its checkpoint when a driver was last found to have died


class Search(Sampling):
    """The state of one search, rebuilt from its ledger.

    Numbers are places among the different trials wherever others see them; what is private goes by
    Optuna's numbers.

    Args:
        study: of the run; only this object writes to it.
        plan: what to do.
        died: the driver before did not stop in order, so what it ran may be why it died.

    Attributes:
        kept_epochs: returns how many epochs of a trial's number need not be trained again.
    """

    def __init__(self, study: Study, plan: SearchPlan, *, died: bool = True) -> None:
        super().__init__(study, plan)
        self._died = died
        self.kept_epochs: Callable[[int], int] = lambda number: 0
        self._waiting: dict[str, list[int]] = {}
        self._orphans: list[FrozenTrial] = []
        self._new: set[int] = set()  # retries that have not run yet
        trials = study.get_trials(deepcopy=False)
        self._places.note(trials)
        for trial in trials:
            repeated = trial.user_attrs.get(RESULT, {}).get("repeat_of") is not None
            self._count(repeated=repeated)
            self._retries += RETRY_OF in trial.user_attrs
            self._ended = max(self._ended, trial.user_attrs.get(RESULT, {}).get(ORDER, -1) + 1)
            if trial.state.is_finished():
                self._remember(trial)
            elif not self._mine(trial):
                continue
            elif RESULT in trial.user_attrs:  # killed between the two writes of a finish
                self._tell(trial.number, trial.user_attrs[RESULT])
            else:
                self._orphans.append(trial)
        for trial in self._orphans:
            self._make_way(trial)

    def left(self) -> bool:
        """Whether there is anything to propose, as far as is known without asking the sampler."""
        return bool(self._orphans) or not (self._enough() or self._grid_done(self._next_number()))

    def waits(self) -> bool:
        """Whether nothing is left to propose now, and something may be later; see ``shared.py``."""
        return False

    def close(self) -> None:
        """Leave the ledger."""

    def propose(self) -> Proposal | None:
        """Return the next trial to run, or None: nothing new is left to propose.

        A known architecture has its scores told to the sampler, which is asked again; after
        ``MAX_REPEATS`` of them in a row (fewer, where that has just happened) an architecture that
        nobody has tried takes their place, and where there is none the space is used up. What a
        dead driver left running comes first, under its old number.
        Raises SamplerFailure where a sampler of the user's fails.
        """
        while self._orphans:
            proposal = self._adopt(self._orphans.pop(0))
            if proposal is not None:
                return proposal
        while not self.used_up and not self._enough():
            number = self._next_number()
            if self._grid_done(number):
                break
            with together(self.study):
                asked = self._ask(number)
                known = asked is not None and self._known(asked)
                proposal = None if asked is None or known else self._hand_out(asked)
            if proposal is not None:
                self._count(repeated=False)
                return proposal
            if known:
                self._count(repeated=True)
            else:
                self.used_up = True
        return None

    def finish(self, number: int, result: Mapping[str, Any]) -> dict[str, Any]:
        """Write the outcome of a running trial, durably, and return it as written.

        Args:
            number: of a proposal.
            result: ``Evaluation.to_dict()``; ``complete`` with an objective that is missing or
                not finite becomes ``diverged``. With a scheduler also what it had at its
                ``rungs`` (see ``nas.search.rungs``), and ``stopped_by``, the values that decided.
        """
        trial = self.running.pop(number)
        outcome = dict(result)
        bad = not_finite(outcome["scores"], tuple(self.plan.objectives))
        if outcome["status"] == "complete" and bad:
            outcome["status"] = "diverged"
            outcome["reason"] = f"expected finite objectives, got none for {', '.join(bad)}"
        outcome |= {
            "architecture": trial.architecture.to_dict(),
            "key": trial.key,
            "repeat_of": None,
        }
        self._write(self._places.number(number), outcome)
        for repeat in self._waiting.pop(trial.key, ()):
            self._repeat(repeat, trial.key)
        return outcome

    def recover(self, saved: Callable[[int, Trial], Mapping[str, Any] | None]) -> list[int]:
        """Finish those trials of a dead driver whose workers had come to the end; their numbers.

        Args:
            saved: returns what a worker wrote of a trial, or None.
        """
        recovered = []
        for orphan in list(self._orphans):
            if not orphan.params.keys() >= self.plan.decisions.keys():
                continue  # the driver died while it asked
            number = self._places.at(orphan.number)
            trial = self.plan.trial(orphan.params)
            if number is None or trial.key in self._finished:
                continue
            outcome = saved(number, trial)
            if outcome is None or self._replaced(orphan, outcome):
                continue
            if outcome["status"] != "oom":  # which runs again, alone
                self._orphans.remove(orphan)
                self.running[number] = trial
                self.finish(number, outcome)
                recovered.append(number)
        return recovered

    def _replaced(self, retry: FrozenTrial, outcome: Mapping[str, Any]) -> bool:
        """Whether an outcome is still that of the failed trial whose place a retry takes."""
        failed = retry.user_attrs.get(RETRY_OF)
        if failed is None:
            return False
        before = self.study._storage.get_trial(self._id(failed)).user_attrs[RESULT]
        told = ("status", "reason", "seconds")
        return all(before.get(name) == outcome.get(name) for name in told)

    def retry(self, statuses: Collection[str]) -> int:
        """Run trials again that ended with one of these statuses; return how many.

        Each takes the number of the failed one, and its place in results and table.
        """
        again = [t for t in self._finished.values() if t.user_attrs[RESULT]["status"] in statuses]
        for trial in sorted(again, key=lambda trial: trial.number):
            made = optuna.trial.create_trial(
                state=TrialState.RUNNING,
                params=trial.params,
                distributions=trial.distributions,
                user_attrs={
                    RETRY_OF: trial.number,
                    PLACE: place_of(trial.number, trial.user_attrs),
                    **self._marks(),
                },
            )
            storage = self.study._storage
            added = storage.get_trial(storage.create_new_trial(self.study._study_id, made))
            self._places.note([added])
            self._make_way(added)
            self._orphans.append(added)
            self._new.add(added.number)
        self._retries += len(again)
        return len(again)

    def _make_way(self, trial: FrozenTrial) -> None:
        """Forget the failed trial that this one, which runs, takes the place of."""
        failed = trial.user_attrs.get(RETRY_OF)
        if failed is not None:
            self._finished = {k: t for k, t in self._finished.items() if t.number != failed}

    # ------------------------------------------------------------------------------ the ledger

    def _mine(self, trial: FrozenTrial) -> bool:
        """Whether it is for this driver to go on with a trial that has not ended."""
        return True

    def _blamed(self, orphan: FrozenTrial) -> bool:
        """Whether a trial may be why the driver that ran it died."""
        return self._died

    def _adopt(self, orphan: FrozenTrial) -> Proposal | None:
        """Take over a trial that a dead driver left running, unless it is known by now."""
        number = orphan.number
        self._seed_sampler(number)
        proposal = self._answers(self._open(number))
        if self._known(proposal):
            return None
        proposal = self._hand_out(proposal)
        if not self._blamed(orphan) or number in self._new:
            return proposal
        attempts = orphan.user_attrs.get(ATTEMPTS, 1) + 1
        kept = self.kept_epochs(proposal.number)
        if kept > orphan.user_attrs.get(KEPT_EPOCHS, 0):  # so it does not kill whoever runs it
            attempts = 2
            self._open(number).set_user_attr(KEPT_EPOCHS, kept)
        if attempts > 2 * MAX_ATTEMPTS:
            reason = (
                f"{2 * MAX_ATTEMPTS} drivers died while it ran, the last with nothing beside it"
            )
            self.finish(proposal.number, failure("error", reason))
            return None
        self._open(number).set_user_attr(ATTEMPTS, attempts)
        return replace(proposal, alone=attempts > MAX_ATTEMPTS)

    def _hand_out(self, proposal: Proposal) -> Proposal:
        """Note that a proposal runs, under the place that it has or gets."""
        place = self._places.give(proposal.number)
        self.running[place] = proposal.trial
        return replace(proposal, number=place)

    def _known(self, proposal: Proposal) -> bool:
        """Answer a duplicate from the ledger, now or when its original ends."""
        key = proposal.trial.key
        if key in self._finished:
            self._repeat(proposal.number, key)
        elif any(key == trial.key for trial in self.running.values()):
            self._waiting.setdefault(key, []).append(proposal.number)
        else:
            return False
        return True

    def _repeat(self, number: int, key: str) -> None:
        original = self._finished[key]
        place = place_of(original.number, original.user_attrs)
        self._write(number, {**original.user_attrs[RESULT], "repeat_of": place})

    def _enough(self) -> bool:
        if self.plan.trials is None:
            return False
        return len(self._finished) + len(self.running) >= self.plan.trials
