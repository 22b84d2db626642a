"""A model-based sampler: predict every candidate, try the one with most to gain.

As BANANAS (White et al. 2021) it learns from what was tried, over the choices and over what the
space knows of them (paths, say), and weighs what is good against what is unknown. Its predictor is
an ensemble of Gaussian processes of several length scales, weighted by how well each explains the
trials: on the tables of NAS-Bench-201 it needs half the queries of an ensemble of trees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import norm, rankdata

from nas.samplers.base import LedgerSampler, random_weights, scalarise
from nas.samplers.decisions import ENUMERABLE, Decisions, Encoded
from nas.samplers.fidelity import expected
from nas.samplers.gaussian import Ensemble, Inputs, fit
from nas.samplers.history import History
from nas.types import FloatArray

PARENTS, STRANGERS, CLIMBS = 10, 500, 3  # candidates elsewhere: neighbours, uniform draws, rounds


class PredictorSampler(LedgerSampler):
    """Expected improvement under an ensemble of Gaussian processes over the ledger.

    A trial that was stopped early counts as what the others came to from its rung.

    Values enter by rank (as normal scores), so that units and outliers play no part. A trial that
    runs counts as what is predicted for it, so that several workers try different things. With
    several objectives, every proposal weighs them anew at random.

    Args:
        decisions: every decision with its choices; None takes the study's own.
        seed: of every draw.
        initial: uniform proposals before the first prediction.
        observations: how many trials the predictor looks at: the best half and the latest half.
    """

    def __init__(
        self,
        decisions: Mapping[str, Sequence[Any]] | None = None,
        seed: int = 0,
        *,
        initial: int = 10,
        observations: int = 400,
    ) -> None:
        super().__init__(decisions, seed)
        if initial < 2:
            raise ValueError(f"initial: expected >= 2, got {initial}")
        if observations < initial:
            raise ValueError(f"observations: expected >= initial ({initial}), got {observations}")
        self._initial, self._observations = initial, observations

    def propose(self, history: History, rng: np.random.Generator) -> dict[str, Any]:
        if len({seen.key for seen in history.scored}) < self._initial:
            return history.unknown(rng)
        tried = _tried(history)
        params = [params for params, _ in tried.values()]
        values = np.array([value for _, value in tried.values()])
        fitness = scalarise(values, random_weights(values.shape[1], rng))
        if np.ptp(fitness) == 0:
            return history.unknown(rng)
        chosen = self._looked_at(fitness)
        scores = norm.ppf((rankdata(fitness[chosen]) - 0.5) / len(chosen))
        running = [trial.params for trial in history.running()]
        model = _Model(history.decisions, [params[i] for i in chosen], scores, running)
        if history.decisions.size() <= ENUMERABLE:
            return self._best_of_all(history, model, rng)
        return self._best_found(history, model, rng)

    def _looked_at(self, fitness: FloatArray) -> list[int]:
        if len(fitness) <= self._observations:
            return list(range(len(fitness)))
        half = self._observations // 2
        latest = set(range(len(fitness) - half, len(fitness)))
        best = [int(i) for i in np.argsort(-fitness, kind="stable") if int(i) not in latest]
        return sorted(latest | set(best[: self._observations - half]))

    def _best_of_all(
        self, history: History, model: _Model, rng: np.random.Generator
    ) -> dict[str, Any]:
        every = history.decisions.everything()
        gain = model.gain(history.decisions.everything_encoded())
        gain += 1e-12 * rng.random(len(gain))
        for index in np.argsort(-gain, kind="stable"):
            if history.decisions.key(every[int(index)]) not in history.known:
                return every[int(index)]
        return history.unknown(rng)

    def _best_found(
        self, history: History, model: _Model, rng: np.random.Generator
    ) -> dict[str, Any]:
        """Climb the expected improvement from the best trials and from uniform draws."""
        decisions = history.decisions
        pool: dict[str, dict[str, Any]] = {}
        gains: dict[str, float] = {}

        def add(several: list[dict[str, Any]]) -> None:
            new = {decisions.key(params): params for params in several}
            new = {k: p for k, p in new.items() if k not in history.known and k not in pool}
            if new:
                pool.update(new)
                gain = model.gain(decisions.encode(list(new.values())))
                gains.update(zip(new, gain.tolist(), strict=True))

        best = [model.params[i] for i in np.argsort(-model.scores, kind="stable")[:PARENTS]]
        strangers = [decisions.draw(rng) for _ in range(STRANGERS)]
        add([*strangers, *(n for params in best for n in decisions.neighbours(params))])
        for _ in range(CLIMBS):
            top = sorted(gains, key=lambda key: -gains[key])[: PARENTS // 2]
            add([n for key in top for n in decisions.neighbours(pool[key])])
        return pool[max(gains, key=lambda key: gains[key])] if pool else history.unknown(rng)


def _tried(history: History) -> dict[str, tuple[dict[str, Any], FloatArray]]:
    """Return params and values of every key that has some, in the order in which they ended."""
    estimates = expected(history)
    scored = {seen.key for seen in history.scored}
    tried: dict[str, tuple[dict[str, Any], FloatArray]] = {}
    for seen in history.finished:
        value = seen.values
        if value is None and seen.key not in scored:
            value = estimates.get(seen.trial.number)
        if value is not None:
            tried.setdefault(seen.key, (seen.params, value))
    return tried


class _Model:
    """The fitted ensemble, with running trials as if they had ended as predicted."""

    def __init__(
        self,
        decisions: Decisions,
        params: Sequence[Mapping[str, Any]],
        scores: FloatArray,
        running: Sequence[Mapping[str, Any]],
    ) -> None:
        self.params, self.scores = params, scores
        encoded = decisions.encode(params)
        every = decisions.everything_encoded() if decisions.size() <= ENUMERABLE else encoded
        self._names = every.names()
        self._ensemble: Ensemble = fit(self._inputs(encoded), scores)
        if running:
            self._ensemble = self._ensemble.believing(self._inputs(decisions.encode(running)))

    def gain(self, candidates: Encoded) -> FloatArray:
        """Return ``(n,)``: the expected improvement on the best score."""
        best = self.scores.max()
        total = np.zeros(len(candidates.codes))
        for weight, mean, deviation in self._ensemble.predict(self._inputs(candidates)):
            u = (mean - best) / deviation
            total += weight * deviation * (u * norm.cdf(u) + norm.pdf(u))
        return total

    def _inputs(self, encoded: Encoded) -> Inputs:
        return Inputs(encoded.codes, encoded.features(self._names))
