"""Samplers by name: Optuna's beside our own.

After a restart a search proposes what it would have proposed without one: our own samplers draw
from a seed and the ledger (``nas.samplers.base``), Optuna's are made anew for every proposal.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler

from nas.samplers.evolution import EvolutionSampler
from nas.samplers.grid import GridSampler
from nas.samplers.local_search import LocalSearchSampler
from nas.samplers.predictor import PredictorSampler
from nas.samplers.reinforce import ReinforceSampler

Choices = Mapping[str, Sequence[Any]]
SamplerFactory = Callable[..., BaseSampler]
"""Called with (decisions, seed, **settings)."""


def random(decisions: Choices, seed: int) -> BaseSampler:
    """Uniform and independent."""
    return RandomSampler(seed=seed)


def grid(decisions: Choices, seed: int, *, only: list[dict[str, Any]] | None = None) -> BaseSampler:
    """Every combination once, or those of a list; the seed plays no part."""
    return GridSampler(decisions, only)


def tpe(decisions: Choices, seed: int, *, startup_trials: int = 10) -> BaseSampler:
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


def nsga2(decisions: Choices, seed: int, *, population_size: int = 20) -> BaseSampler:
    """Non-dominated sorting genetic algorithm II, for several objectives."""
    return NSGAIISampler(population_size=population_size, seed=seed)


def gp(decisions: Choices, seed: int, *, startup_trials: int = 10) -> BaseSampler:
    """Optuna's Gaussian process with expected improvement: a yardstick, slow beyond 100 trials."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return GPSampler(n_startup_trials=startup_trials, deterministic_objective=True, seed=seed)


def evolution(
    decisions: Choices, seed: int, *, population_size: int = 20, tournament_size: int = 10
) -> BaseSampler:
    """Regularised evolution (Real et al. 2019): the oldest die."""
    return EvolutionSampler(
        decisions, seed, population_size=population_size, tournament_size=tournament_size
    )


def local_search(decisions: Choices, seed: int, *, initial: int = 10) -> BaseSampler:
    """Every neighbour of the best, then of the next best."""
    return LocalSearchSampler(decisions, seed, initial=initial)


def predictor(
    decisions: Choices, seed: int, *, initial: int = 10, observations: int = 400
) -> BaseSampler:
    """Expected improvement under an ensemble of Gaussian processes, over choices and paths."""
    return PredictorSampler(decisions, seed, initial=initial, observations=observations)


def reinforce(
    decisions: Choices,
    seed: int,
    *,
    algorithm: str = "ppo",
    hidden_units: int = 100,
    learning_rate: float = 3.5e-4,
    entropy_weight: float = 0.03,
    baseline_decay: float = 0.95,
    batch_size: int = 5,
    epochs: int = 20,
    clip: float = 0.2,
) -> BaseSampler:
    """A recurrent policy taught by policy gradients (NASNet; Cubuk et al.): PPO or REINFORCE."""
    return ReinforceSampler(
        decisions,
        seed,
        algorithm=algorithm,
        hidden_units=hidden_units,
        learning_rate=learning_rate,
        entropy_weight=entropy_weight,
        baseline_decay=baseline_decay,
        batch_size=batch_size,
        epochs=epochs,
        clip=clip,
    )


SAMPLERS: dict[str, SamplerFactory] = {
    "random": random,
    "grid": grid,
    "tpe": tpe,
    "nsga2": nsga2,
    "gp": gp,
    "evolution": evolution,
    "local-search": local_search,
    "predictor": predictor,
    "reinforce": reinforce,
}
