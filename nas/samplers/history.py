"""The finished and running trials of a study, as our samplers read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nas.ledger.results import ORDER, RESULT
from nas.samplers.decisions import ENUMERABLE, Decisions
from nas.types import FloatArray

ATTEMPTS = 10  # known neighbours before one decision more is changed


@dataclass(frozen=True)
class Observation:
    """A finished trial as a sampler sees it.

    Attributes:
        trial: Optuna's.
        key: what :meth:`Decisions.key` gives for it.
        values: ``(k,)``, one an objective, larger is better; None of a trial without finite ones.
        repeat: a trial of that key had ended before.
    """

    trial: FrozenTrial
    key: str
    values: FloatArray | None
    repeat: bool = False

    @property
    def params(self) -> dict[str, Any]:
        """The choices."""
        return self.trial.params


class History:
    """The ledger as far as a sampler has read it.

    Attributes:
        finished: every finished trial that answers all decisions, in the order in which they ended.
        scored: those of them that have values.
        known: the keys of all trials, those that run or failed too.
    """

    def __init__(self, decisions: Decisions) -> None:
        self.decisions = decisions
        self.finished: list[Observation] = []
        self.scored: list[Observation] = []
        self.known: set[str] = set()
        self._ended: set[str] = set()
        self._read = 0
        self._open: dict[int, FrozenTrial] = {}

    def read(self, study: Study, until: int) -> None:
        """Read what is new: trials numbered below ``until``, and those that ran and have ended."""
        # Not study.get_trials: some pruners show a sampler a part of the study.
        trials = study._storage.get_all_trials(study._study_id, deepcopy=False)
        until = max(self._read, min(until, len(trials)))
        numbers = [*self._open, *range(self._read, until)]
        self._read = until
        ended = []
        for number in numbers:
            trial = trials[number]
            answered = self._answers(trial)
            if trial.state.is_finished():
                self._open.pop(number, None)
                ended += [trial] if answered else []
            else:
                self._open[number] = trial
                if answered:
                    self.known.add(self.decisions.key(trial.params))
        for trial in sorted(ended, key=_ended):
            key = self.decisions.key(trial.params)
            seen = Observation(
                trial, key, _values(trial, study.directions), repeat=key in self._ended
            )
            self.known.add(key)
            self._ended.add(key)
            self.finished.append(seen)
            if seen.values is not None:
                self.scored.append(seen)

    def running(self) -> list[FrozenTrial]:
        """Return the trials that run and have answered every decision, by number."""
        open_ = [self._open[number] for number in sorted(self._open)]
        return [trial for trial in open_ if self._answers(trial)]

    def _answers(self, trial: FrozenTrial) -> bool:
        """Whether every decision has one of its choices: a foreign trial may have others."""
        return all(
            name in trial.params and trial.params[name] in choices
            for name, choices in self.decisions.items()
        )

    def values(self) -> FloatArray:
        """Return ``(n, k)``: the values of :attr:`scored`."""
        return np.array([seen.values for seen in self.scored], dtype=float)

    def near(self, params: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Return the choices with one changed, or as many as it takes to be of an unknown key."""
        decisions = self.decisions
        free = [name for name, choices in decisions.items() if len(choices) > 1]
        for edits in range(1, len(free) + 1):
            for _ in range(ATTEMPTS):
                changed = {name: params[name] for name in decisions}
                for name in (free[i] for i in rng.choice(len(free), edits, replace=False)):
                    others = [c for c in decisions[name] if c != params[name]]
                    changed[name] = others[rng.integers(len(others))]
                if decisions.key(changed) not in self.known:
                    return changed
        return self.unknown(rng)

    def unknown(self, rng: np.random.Generator, attempts: int = 100) -> dict[str, Any]:
        """Return uniform choices of a key that no trial has, if there is one to be found."""
        decisions = self.decisions
        for _ in range(attempts):
            params = decisions.draw(rng)
            if decisions.key(params) not in self.known:
                return params
        if decisions.size() <= ENUMERABLE:
            left = [p for p in decisions.everything() if decisions.key(p) not in self.known]
            return left[rng.integers(len(left))] if left else params
        return params


def _ended(trial: FrozenTrial) -> tuple[int, Any, int]:
    """Return what trials are ordered by: their ends, by the ledger's count rather than the clock.

    Those of another study or an earlier version have none, and come first.
    """
    order = trial.user_attrs.get(RESULT, {}).get(ORDER)
    if order is None:
        return 0, trial.datetime_complete, trial.number
    return 1, order, trial.number


def _values(trial: FrozenTrial, directions: Sequence[StudyDirection]) -> FloatArray | None:
    if trial.state is not TrialState.COMPLETE:
        return None
    signs = [1.0 if d is StudyDirection.MAXIMIZE else -1.0 for d in directions]
    values: FloatArray = np.array(signs) * np.array(trial.values, dtype=float)
    return values if np.isfinite(values).all() else None
