"""Regularised evolution: the best of a few of the youngest has a child, and the old die.

Real et al. 2019, "Regularized Evolution for Image Classifier Architecture Search": age, not
fitness, decides who leaves the population, so that an architecture stays only through its
children. A child differs in one decision, or in as many as it takes to be new.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nas.samplers.base import LedgerSampler, random_weights, scalarise
from nas.samplers.history import History


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
        return history.near(parent.params, rng)
