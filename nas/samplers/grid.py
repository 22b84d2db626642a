"""Every combination of choices, each once, in order: the last decision fastest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from nas.ledger.results import RETRY_OF


class GridSampler(BaseSampler):
    """Trial number k gets the k-th combination, so workers and restarts play no part.

    Trials that take the place of failed ones do not count.

    Args:
        decisions: every decision with its choices, in order.
    """

    def __init__(self, decisions: Mapping[str, Sequence[Any]]) -> None:
        self._decisions = {name: tuple(choices) for name, choices in decisions.items()}
        # numpy counts through 64 dimensions at most: those of one choice are left out
        self._free = [name for name, choices in self._decisions.items() if len(choices) > 1]
        self._shape = tuple(len(self._decisions[name]) for name in self._free)
        self._counted = 0, 0  # trials looked at, and how many of them took the place of another
        self.size = int(np.prod(self._shape, dtype=object))

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {name: CategoricalDistribution(c) for name, c in self._decisions.items()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        place = (trial.number - self._retries(study, trial.number)) % self.size
        index = np.unravel_index(place, self._shape) if self._free else ()
        picked = dict(zip(self._free, index, strict=True))
        return {name: c[int(picked.get(name, 0))] for name, c in self._decisions.items()}

    def _retries(self, study: Study, number: int) -> int:
        """Return how many trials before this one took the place of another."""
        if number < self._counted[0]:
            self._counted = 0, 0
        trials = study._storage.get_all_trials(study._study_id, deepcopy=False)
        start, count = self._counted
        count += sum(RETRY_OF in trial.user_attrs for trial in trials[start:number])
        self._counted = number, count
        return count

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        raise ValueError(
            f"grid: expected one of {list(self._decisions)}, got decision {param_name!r}"
        )
