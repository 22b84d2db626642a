"""Every combination of choices, each once, in order: the last decision fastest.

Or of a list of them: those architectures that somebody has picked, under several seeds, say.
"""

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
        only: answers to some decisions, the same ones each time. Only these are combined with every
            choice of the other decisions, and the list is gone through fastest.

    Raises:
        ValueError: an empty list, answers to other decisions than the first's, or not one of a
            decision's choices.
    """

    def __init__(
        self,
        decisions: Mapping[str, Sequence[Any]],
        only: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        self._decisions = {name: tuple(choices) for name, choices in decisions.items()}
        self._only = [{}] if only is None else [_answers(self._decisions, of, only) for of in only]
        if not self._only:
            raise ValueError("only: expected one or more answers, got none")
        # numpy counts through 64 dimensions at most: those of one choice are left out
        self._free = [
            name
            for name, choices in self._decisions.items()
            if len(choices) > 1 and name not in self._only[0]
        ]
        self._shape = tuple(len(self._decisions[name]) for name in self._free)
        self._counted = 0, 0  # trials looked at, and how many of them took the place of another
        self.size = int(np.prod(self._shape, dtype=object)) * len(self._only)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {name: CategoricalDistribution(c) for name, c in self._decisions.items()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        place = (trial.number - self._retries(study, trial.number)) % self.size
        place, listed = divmod(place, len(self._only))
        index = np.unravel_index(place, self._shape) if self._free else ()
        picked = dict(zip(self._free, index, strict=True))
        found = {name: c[int(picked.get(name, 0))] for name, c in self._decisions.items()}
        return {**found, **self._only[listed]}

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


def _answers(
    decisions: Mapping[str, Sequence[Any]],
    answers: Mapping[str, Any],
    every: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return one entry of ``only`` with every choice as the decision has it."""
    if answers.keys() != every[0].keys():
        raise ValueError(
            f"only: expected answers to {', '.join(every[0])} each time, got {dict(answers)}"
        )
    found = {}
    for name, choice in answers.items():
        if name not in decisions:
            raise ValueError(f"only: expected decisions among {', '.join(decisions)}, got {name!r}")
        if choice not in decisions[name]:
            raise ValueError(
                f"only: expected {name} as one of {list(decisions[name])}, got {choice!r}"
            )
        found[name] = decisions[name][list(decisions[name]).index(choice)]
    return found
