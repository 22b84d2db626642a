"""Samplers by name: each is made anew for every proposal, from a seed and the ledger alone.

A sampler that keeps no state of its own proposes after a restart what it would have proposed
without one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler

from nas.samplers.grid import GridSampler

Decisions = Mapping[str, Sequence[Any]]
SamplerFactory = Callable[..., BaseSampler]
"""Called with (decisions, seed, **settings)."""


def random(decisions: Decisions, seed: int) -> BaseSampler:
    """Uniform and independent."""
    return RandomSampler(seed=seed)


def grid(decisions: Decisions, seed: int) -> BaseSampler:
    """Every combination once; the seed plays no part."""
    return GridSampler(decisions)


def tpe(decisions: Decisions, seed: int, *, startup_trials: int = 10) -> BaseSampler:
    """Tree-structured Parzen estimator: multivariate, grouped, with a constant liar."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(
            n_startup_trials=startup_trials,
            multivariate=True,
            group=True,
            constant_liar=True,
            seed=seed,
        )


def nsga2(decisions: Decisions, seed: int, *, population_size: int = 20) -> BaseSampler:
    """Non-dominated sorting genetic algorithm II, for several objectives."""
    return NSGAIISampler(population_size=population_size, seed=seed)


SAMPLERS: dict[str, SamplerFactory] = {
    "random": random,
    "grid": grid,
    "tpe": tpe,
    "nsga2": nsga2,
}
