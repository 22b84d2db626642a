"""What our own samplers share: all they know is the ledger, and all they draw from is a seed.

A :class:`LedgerSampler` proposes from the finished trials, its seed and the trial's number. So a
search that was killed goes on with the proposal that it would have made, and a study that somebody
else filled is as good as one's own.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nas.samplers.decisions import ENUMERABLE, Decisions
from nas.seeds import derive_seed

FloatArray = NDArray[np.float64]

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


class LedgerSampler(BaseSampler):
    """Proposes from the ledger; a subclass writes :meth:`propose`.

    Args:
        decisions: every decision with its choices, in order; None takes the categorical parameters
            that all complete trials of the study have in common.
        seed: with the trial's number, decides every draw.
    """

    def __init__(self, decisions: Mapping[str, Sequence[Any]] | None = None, seed: int = 0) -> None:
        self._given = decisions
        self._made = decisions if isinstance(decisions, Decisions) else None
        self._seed = seed
        self._of: tuple[BaseStorage, int] | None = None
        self._history: History | None = None
        self._common = IntersectionSearchSpace()
        self._lock = threading.RLock()  # Study.optimize may ask from several threads

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what the ledger gives back."""
        made = self._given if isinstance(self._given, Decisions) else None
        left = {"_lock": None, "_of": None, "_history": None, "_common": None, "_made": made}
        return {**self.__dict__, **left}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock(), _common=IntersectionSearchSpace())

    @abstractmethod
    def propose(self, history: History, rng: np.random.Generator) -> dict[str, Any]:
        """Return a choice for every decision.

        Args:
            history: the ledger; the same object at every call of one study.
            rng: of this proposal.
        """

    def forget(self) -> None:  # noqa: B027  most samplers keep nothing beside the history
        """Drop what was learned from another study; called before the first proposal of one."""

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        with self._lock:
            self._turn_to(study)
            decisions = self._decisions(study)
        return {name: CategoricalDistribution(choices) for name, choices in decisions.items()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if not search_space:
            return {}
        with self._lock:
            history = self._read(study, trial.number)
            return self.propose(history, np.random.default_rng([self._seed, trial.number]))

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw what is not among the decisions uniformly, again from seed and number alone."""
        drawn = RandomSampler(seed=derive_seed(self._seed, trial.number, param_name) % 2**32)
        return drawn.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """Draw other proposals than a copy of this sampler in another process."""
        self._seed = int(np.random.default_rng().integers(2**32))

    def _decisions(self, study: Study) -> Decisions:
        if self._made is None and self._given is not None:
            self._made = Decisions(self._given)
        if self._made is not None:
            return self._made
        common = self._common.calculate(study)
        return Decisions(
            {n: d.choices for n, d in common.items() if isinstance(d, CategoricalDistribution)}
        )

    def _turn_to(self, study: Study) -> None:
        """Drop what is known of another study."""
        if self._of is None or self._of[0] is not study._storage or self._of[1] != study._study_id:
            self._of, self._history = (study._storage, study._study_id), None
            self._common = IntersectionSearchSpace()

    def _read(self, study: Study, until: int) -> History:
        self._turn_to(study)
        decisions = self._decisions(study)
        if self._history is None or self._history.decisions != decisions:
            self._history = History(decisions)
            self.forget()
        self._history.read(study, until)
        return self._history


def scalarise(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Return one number a row, larger is better: one objective as it is, several as one.

    Several are brought to [0, 1] over the rows and joined by the augmented Tchebycheff function,
    whose optima for changing weights are the Pareto front (Knowles 2006, ParEGO).

    Args:
        values: ``(n, k)``, larger is better.
        weights: ``(k,)``, non-negative.
    """
    if values.shape[1] == 1:
        return values[:, 0]
    low, high = values.min(axis=0), values.max(axis=0)
    unit = (values - low) / np.where(high > low, high - low, 1.0)
    weighted = weights * (unit - 1.0)
    joined: FloatArray = weighted.min(axis=1) + 0.05 * weighted.sum(axis=1)
    return joined


def random_weights(objectives: int, rng: np.random.Generator) -> FloatArray:
    """Return ``(objectives,)`` weights, uniform among those that sum to 1."""
    return rng.dirichlet(np.ones(objectives))


def _ended(trial: FrozenTrial) -> tuple[Any, int]:
    return trial.datetime_complete, trial.number


def _values(trial: FrozenTrial, directions: Sequence[StudyDirection]) -> FloatArray | None:
    if trial.state is not TrialState.COMPLETE:
        return None
    signs = [1.0 if d is StudyDirection.MAXIMIZE else -1.0 for d in directions]
    values: FloatArray = np.array(signs) * np.array(trial.values, dtype=float)
    return values if np.isfinite(values).all() else None
