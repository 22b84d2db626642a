"""Local search: try every neighbour of the best, then of the next best.

White et al. 2021, "Exploring the Loss Landscape in Neural Architecture Search": on cell spaces this
simple search is as good as any. A neighbour differs in one decision. Where a paper's version starts
anew in a local optimum, this one goes on with the best trial that has an untried neighbour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nas.samplers.base import LedgerSampler, random_weights, scalarise
from nas.samplers.history import History


class LocalSearchSampler(LedgerSampler):
    """Best-first local search over the ledger.

    With several objectives, "best" is under random weights at every proposal.

    Args:
        decisions: every decision with its choices; None takes the study's own.
        seed: of every draw.
        initial: uniform proposals before the first neighbour is tried.
    """

    def __init__(
        self,
        decisions: Mapping[str, Sequence[Any]] | None = None,
        seed: int = 0,
        *,
        initial: int = 10,
    ) -> None:
        super().__init__(decisions, seed)
        if initial < 1:
            raise ValueError(f"initial: expected >= 1, got {initial}")
        self._initial = initial
        self._exhausted: set[int] = set()

    def forget(self) -> None:
        self._exhausted = set()

    def propose(self, history: History, rng: np.random.Generator) -> dict[str, Any]:
        if len(history.scored) < self._initial:
            return history.unknown(rng)
        decisions, values = history.decisions, history.values()
        fitness = scalarise(values, random_weights(values.shape[1], rng))
        for index in np.argsort(-fitness, kind="stable"):
            seen = history.scored[index]
            if seen.trial.number in self._exhausted:
                continue
            around = decisions.neighbours(seen.params)
            untried = [near for near in around if decisions.key(near) not in history.known]
            if untried:
                return untried[rng.integers(len(untried))]
            self._exhausted.add(seen.trial.number)  # what is known stays known
        return history.unknown(rng)
