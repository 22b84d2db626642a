"""What our own samplers share: all they know is the ledger, and all they draw from is a seed.

A :class:`LedgerSampler` proposes from the finished trials, its seed and the trial's number. So a
search that was killed goes on with the proposal that it would have made, and a study that somebody
else filled is as good as one's own.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial

from nas.samplers.decisions import Decisions
from nas.samplers.history import History
from nas.seeds import derive_seed
from nas.types import FloatArray


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

    def keep_in(self, folder: Path) -> None:  # noqa: B027  most samplers read the ledger in no time
        """Keep what takes long to learn from the ledger in a file there, and read it at first."""

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
