"""Every combination of choices, each once, in order: the last decision fastest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial


class GridSampler(BaseSampler):
    """Trial number k gets the k-th combination, so workers and restarts play no part.

    Args:
        decisions: every decision with its choices, in order.
    """

    def __init__(self, decisions: Mapping[str, Sequence[Any]]) -> None:
        self._decisions = {name: tuple(choices) for name, choices in decisions.items()}
        # numpy counts through 64 dimensions at most: those of one choice are left out
        self._free = [name for name, choices in self._decisions.items() if len(choices) > 1]
        self._shape = tuple(len(self._decisions[name]) for name in self._free)
        self.size = int(np.prod(self._shape, dtype=object))

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {name: CategoricalDistribution(c) for name, c in self._decisions.items()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        index = np.unravel_index(trial.number % self.size, self._shape) if self._free else ()
        picked = dict(zip(self._free, index, strict=True))
        return {name: c[int(picked.get(name, 0))] for name, c in self._decisions.items()}

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
