"""Regularised evolution: the best of a few of the youngest has a child, and the old die.

Real et al. 2019, "Regularized Evolution for Image Classifier Architecture Search": age, not
fitness, decides who leaves the population, so that an architecture stays only through its children.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nas.samplers.base import History, LedgerSampler, random_weights, scalarise

ATTEMPTS = 10  # children of one parent that are known before a mutation changes one decision more


class EvolutionSampler(LedgerSampler):
    """Regularised evolution over the ledger.

    The population is the last ``population_size`` trials that ended with values; before there are
    so many, proposals are uniform. With several objectives each tournament is held under weights of
    its own.

    Args:
        decisions: every decision with its choices; None takes the study's own.
        seed: of every draw.
        population_size: P of the paper.
        tournament_size: S of the paper: how many compete for being the parent.
    """

    def __init__(
        self,
        decisions: Mapping[str, Sequence[Any]] | None = None,
        seed: int = 0,
        *,
        population_size: int = 20,
        tournament_size: int = 10,
    ) -> None:
        super().__init__(decisions, seed)
        if not 1 <= tournament_size <= population_size:
            raise ValueError(
                "expected 1 <= tournament_size <= population_size, got "
                f"{tournament_size} and {population_size}"
            )
        self._population, self._tournament = population_size, tournament_size

    def propose(self, history: History, rng: np.random.Generator) -> dict[str, Any]:
        if len(history.scored) < self._population:
            return history.unknown(rng)
        population = history.scored[-self._population :]
        values = np.array([seen.values for seen in population])
        fitness = scalarise(values, random_weights(values.shape[1], rng))
        chosen = rng.choice(len(population), self._tournament, replace=False)
        parent = population[max(chosen, key=lambda i: fitness[i])]
        return _child(parent.params, history, rng)


def _child(parent: Mapping[str, Any], history: History, rng: np.random.Generator) -> dict[str, Any]:
    """Return the parent with one decision changed, or as many as it takes to be unknown."""
    decisions = history.decisions
    free = [name for name, choices in decisions.items() if len(choices) > 1]
    for edits in range(1, len(free) + 1):
        for _ in range(ATTEMPTS):
            child = {name: parent[name] for name in decisions}
            for name in rng.choice(len(free), edits, replace=False):
                others = [c for c in decisions[free[name]] if c != parent[free[name]]]
                child[free[name]] = others[rng.integers(len(others))]
            if decisions.key(child) not in history.known:
                return child
    return history.unknown(rng)
