"""Asking the sampler for the next trial: a resumed search asks as an unbroken one does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.study import Study

from nas.ledger.results import PLACE
from nas.samplers.base import LedgerSampler
from nas.samplers.classes import SamplerClass
from nas.samplers.decisions import ENUMERABLE
from nas.samplers.registry import SAMPLERS
from nas.search.blame import blaming
from nas.search.books import Books
from nas.search.plan import SearchPlan
from nas.search.untried import DRAWS, GivenChoices, untried
from nas.seeds import derive_seed
from nas.trial.trial import Trial

MAX_REPEATS = 20  # known architectures proposed in a row before an untried one takes their place


@dataclass(frozen=True)
class Proposal:
    """A trial to run, its number, and what it varies beside the architecture.

    ``number``: among the different trials of the search, from 0; see ``nas.search.places``.
    ``alone``: with nothing beside it, since drivers have died while it ran with others.
    """

    number: int
    trial: Trial
    overrides: Mapping[str, Any]
    alone: bool = False


class Sampling(Books):
    """The books, and the sampler that reads them.

    Args:
        study: of the run.
        plan: what to do.
    """

    def __init__(self, study: Study, plan: SearchPlan) -> None:
        super().__init__(study, plan)
        self.study.sampler = self._sampler("sampler")
        self.used_up = False
        self._repeats = 0  # known architectures in a row, those before a restart included
        self._patience = MAX_REPEATS
        self._retries = 0  # trials that take the place of failed ones

    def _count(self, *, repeated: bool) -> None:
        """Count a proposal.

        Whoever repeats itself until an untried cell takes its place is waited for half as long the
        next time: a sampler that has converged would else be asked ``MAX_REPEATS`` times a trial.
        """
        if repeated:
            self._repeats += 1
            return
        out_of_patience = self._repeats >= self._patience
        self._patience = max(1, self._patience // 2) if out_of_patience else MAX_REPEATS
        self._repeats = 0

    def why_used_up(self) -> str:
        """Return why nothing new is left to propose, once that is so."""
        size = self.plan.decisions.size()
        if size > ENUMERABLE:
            return f"nothing new in {MAX_REPEATS} proposals and {DRAWS} uniform draws of {size}"
        return f"the space is used up: each of {size} combinations of choices is known"

    def _marks(self) -> dict[str, Any]:
        """Return the attributes of a new trial."""
        return {}

    def _new_trial(self, number: int) -> optuna.Trial:
        """Ask the sampler for a trial that has no place yet."""
        storage = self.study._storage
        trial_id = storage.create_new_trial(self.study._study_id)
        storage.set_trial_user_attr(trial_id, PLACE, None)
        asked = optuna.Trial(self.study, trial_id)
        assert asked.number == number, (asked.number, number)  # we are the only writer
        return asked

    def _ask(self, number: int) -> Proposal | None:
        """Return the sampler's next proposal; None: it repeats itself, and nothing else is left.

        It goes under Optuna's number until :meth:`_hand_out` gives it one of ours.
        """
        self._seed_sampler(number)
        sampler = self.study.sampler
        if self._repeats >= self._patience and self._grid_end() is None:
            seed = derive_seed(self.plan.template.seed, "untried", number)
            rng = np.random.default_rng(seed)
            params = untried(self.plan.decisions, self._taken(), rng)
            if params is None:
                return None
            self.study.sampler = GivenChoices(params, self.plan.decisions, sampler)
        try:
            with blaming(self.plan.sampler, sampler, self._places.next):
                return self._answers(self._new_trial(number))
        finally:
            self.study.sampler = sampler

    def _taken(self) -> set[str]:
        """Return the keys of what has ended or runs."""
        return self._finished.keys() | {trial.key for trial in self.running.values()}

    def _answers(self, asked: optuna.Trial) -> Proposal:
        params = {n: asked.suggest_categorical(n, c) for n, c in self.plan.decisions.items()}
        return Proposal(asked.number, self.plan.trial(params), self.plan.overrides(params))

    def _seed_sampler(self, number: int) -> None:
        # A resumed search proposes what an unbroken one would: ours draw from (seed, number) and
        # the ledger, others are made anew from both.
        lasting = isinstance(self.study.sampler, LedgerSampler) or self._lasting
        if not lasting:
            self.study.sampler = self._sampler("sampler", number)

    def _sampler(self, *purpose: str | int) -> BaseSampler:
        if self._lasting:  # a restart draws on, and does not repeat what it drew first
            purpose = (*purpose, self._next_number())
        seed = derive_seed(self.plan.template.seed, *purpose) % 2**32
        return self.plan.sampler(self.plan.decisions, seed, **self.plan.sampler_settings)

    @property
    def _lasting(self) -> bool:
        """Whether the sampler may keep its state in memory, and so is made once a process."""
        return isinstance(self.plan.sampler, SamplerClass) and self.plan.sampler.lasting

    def _grid_done(self, number: int) -> bool:
        end = self._grid_end()
        return end is not None and number - self._retries >= end

    def _grid_end(self) -> int | None:
        """Return how many proposals there are where they are counted: a grid knows its end."""
        return self.plan.size if self.plan.sampler is SAMPLERS["grid"] else None
