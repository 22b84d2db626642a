"""What a search asks for where its sampler proposes nothing new: a cell that nobody has tried.

A sampler that has converged, or draws at random from a space that is nearly used up, proposes known
architectures for ever. As long as cells are left, the search goes on with one of those.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from nas.samplers.decisions import ENUMERABLE, Decisions

DRAWS = 1000  # uniform ones, where the space is too large to look at every cell


def untried(
    decisions: Decisions, known: Collection[str], rng: np.random.Generator
) -> dict[str, Any] | None:
    """Return choices of a key that is not ``known``, uniform among those; None: there is none.

    Of more than ``ENUMERABLE`` combinations ``DRAWS`` are looked at.
    """
    if decisions.size() <= ENUMERABLE:
        left = [p for p in decisions.everything() if decisions.key(p) not in known]
        return left[int(rng.integers(len(left)))] if left else None
    for _ in range(DRAWS):
        params = decisions.draw(rng)
        if decisions.key(params) not in known:
            return params
    return None


class GivenChoices(BaseSampler):
    """Proposes given choices once, in a sampler's stead; its other hooks are that sampler's.

    Args:
        params: a choice for every decision.
        decisions: with all their choices.
        sampler: which keeps notes of a trial, maybe, before it begins and after it ends.
    """

    def __init__(
        self, params: Mapping[str, Any], decisions: Mapping[str, Any], sampler: BaseSampler
    ) -> None:
        self._params, self._decisions, self._sampler = params, decisions, sampler

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {name: CategoricalDistribution(c) for name, c in self._decisions.items()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return dict(self._params)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._params[param_name]

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._sampler.before_trial(study, trial)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        self._sampler.after_trial(study, trial, state, values)
