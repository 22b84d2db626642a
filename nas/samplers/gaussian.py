"""Gaussian processes over choices and named numbers, several at once, weighted by their evidence.

The covariance of two proposals is w exp(-h / a) + (1 - w) exp(-d / b): h is the share of decisions
that differ, d the squared distance of their named numbers over its mean. A grid of (a, b, w, noise)
stands in for an integral over them (Rasmussen & Williams 2006, chapters 2 and 5).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular

from nas.types import FloatArray

SHARES = (1 / 6, 1 / 3, 2 / 3)  # a
SPREADS = (0.2, 0.6, 1.8)  # b
WEIGHTS = (0.2, 0.5, 0.8)  # w; 1 stands for the choices alone
NOISES = (0.01, 0.1, 0.5)  # variance, of 1
MEMBERS = 4


@dataclass(frozen=True)
class Inputs:
    """``codes`` ``(n, decisions)`` of choices, ``features`` ``(n, m)`` of named numbers."""

    codes: NDArray[np.int64]
    features: FloatArray


@dataclass(frozen=True)
class Scale:
    """The settings of one process."""

    share: float
    spread: float
    weight: float
    noise: float


def fit(inputs: Inputs, scores: FloatArray) -> Ensemble:
    """Return the processes that explain ``scores`` ``(n,)`` best, of mean zero."""
    spread = float(_squared(inputs.features, inputs.features).mean())
    covariances = _Covariances(inputs, inputs, spread)
    grid = [Scale(a, 1.0, 1.0, noise) for a in SHARES for noise in NOISES]
    if spread > 0:
        mixed = itertools.product(SHARES, SPREADS, WEIGHTS, NOISES)
        grid += [Scale(*scale) for scale in mixed]
    evidence = np.array([_evidence(covariances(s), s, scores) for s in grid])
    best = np.argsort(-evidence, kind="stable")[:MEMBERS]
    weights = np.exp(evidence[best] - evidence[best[0]])
    members = tuple(grid[i] for i in best)
    return Ensemble(inputs, scores, members, weights / weights.sum(), spread)


class Ensemble:
    """Weighted processes, conditioned on the same scores."""

    def __init__(
        self,
        inputs: Inputs,
        scores: FloatArray,
        members: tuple[Scale, ...],
        weights: FloatArray,
        spread: float,
    ) -> None:
        self._inputs, self._scores = inputs, scores
        self._members, self._weights, self._spread = members, weights, spread
        covariances = _Covariances(inputs, inputs, spread)
        self._solved = []
        for scale in members:
            factor = _factor(covariances(scale), scale)
            solved = cho_solve((factor, True), scores)
            self._solved.append((factor, solved, float(scores @ solved) / len(scores)))

    def predict(self, candidates: Inputs) -> Iterator[tuple[float, FloatArray, FloatArray]]:
        """Yield of every member its weight, and mean and standard deviation ``(n,)``."""
        covariances = _Covariances(self._inputs, candidates, self._spread)
        for scale, weight, (factor, solved, variance) in zip(
            self._members, self._weights, self._solved, strict=True
        ):
            covariance = covariances(scale)
            reduced = solve_triangular(factor, covariance, lower=True, check_finite=False)
            left = np.maximum(1.0 - (reduced**2).sum(axis=0), 1e-9)
            yield float(weight), covariance.T @ solved, np.sqrt(left * variance)

    def believing(self, running: Inputs) -> Ensemble:
        """Return the ensemble that takes the predicted means of ``running`` for seen."""
        means = sum(
            (w * mean for w, mean, _ in self.predict(running)), np.zeros(len(running.codes))
        )
        inputs = Inputs(
            np.concatenate([self._inputs.codes, running.codes]),
            np.concatenate([self._inputs.features, running.features]),
        )
        scores = np.concatenate([self._scores, means])
        return Ensemble(inputs, scores, self._members, self._weights, self._spread)


def _evidence(covariance: FloatArray, scale: Scale, scores: FloatArray) -> float:
    """Return the log marginal likelihood, the signal's variance at its best value."""
    factor = _factor(covariance, scale)
    variance = float(scores @ cho_solve((factor, True), scores)) / len(scores)
    half_log_determinant = float(np.log(np.diag(factor)).sum())
    return -0.5 * len(scores) * math.log(max(variance, 1e-12)) - half_log_determinant


def _factor(covariance: FloatArray, scale: Scale) -> FloatArray:
    factor: FloatArray = cholesky(
        covariance + scale.noise * np.eye(len(covariance)), lower=True, check_finite=False
    )
    return factor


class _Covariances:
    """The covariances of two sets of proposals under any scale; exponentials are taken once."""

    def __init__(self, a: Inputs, b: Inputs, spread: float) -> None:
        self._hamming = _hamming(a.codes, b.codes)
        self._squared = _squared(a.features, b.features) / spread if spread > 0 else None
        self._near: dict[tuple[str, float], FloatArray] = {}

    def __call__(self, scale: Scale) -> FloatArray:
        by_choices = self._exp("choices", self._hamming, scale.share)
        if scale.weight == 1 or self._squared is None:
            return by_choices
        by_features = self._exp("features", self._squared, scale.spread)
        return scale.weight * by_choices + (1 - scale.weight) * by_features

    def _exp(self, which: str, distance: FloatArray, length: float) -> FloatArray:
        if (which, length) not in self._near:
            self._near[which, length] = np.exp(-distance / length)
        return self._near[which, length]


def _hamming(a: NDArray[np.int64], b: NDArray[np.int64]) -> FloatArray:
    """Return ``(n, m)``: the share of decisions that differ."""
    differing = np.zeros((len(a), len(b)))
    for left, right in zip(a.T, b.T, strict=True):
        differing += left[:, None] != right[None, :]
    differing /= max(1, a.shape[1])
    return differing


def _squared(a: FloatArray, b: FloatArray) -> FloatArray:
    squared: FloatArray = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    return squared.clip(min=0.0)
