"""Samplers as a user writes them, for tests that name them as ``own_samplers:Counting``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from optuna.samplers import BaseSampler, RandomSampler, TPESampler

if TYPE_CHECKING:
    from decimal import Decimal

MADE = []


class Counting(BaseSampler):
    """Proposes the choices of each decision in turn, and counts in memory."""

    def __init__(self, start: int = 0, unit: Decimal = None, *, seed: int | None = None) -> None:
        self.count, self.seed = start, seed
        MADE.append(self)

    def infer_relative_search_space(self, study, trial):
        return {}

    def sample_relative(self, study, trial, search_space):
        self.count += 1
        return {}

    def sample_independent(self, study, trial, param_name, param_distribution):
        choices = param_distribution.choices
        return choices[(self.count - 1) % len(choices)]


class Tuned(TPESampler):
    """Passes on what it is given."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)


class Raising(Counting):
    """Fails at its third proposal."""

    def sample_relative(self, study, trial, search_space):
        if trial.number == 2:
            raise RuntimeError("no more ideas")
        return super().sample_relative(study, trial, search_space)


class Outside(Counting):
    """Proposes what is no choice."""

    def sample_independent(self, study, trial, param_name, param_distribution):
        return 99


class Needy(Counting):
    """Cannot be made."""

    def __init__(self, model) -> None:
        raise ModuleNotFoundError("No module named 'big_model'")


def making(decisions, seed, warm_up=0.0):
    """Make one of Optuna's."""
    time.sleep(warm_up)
    return RandomSampler(seed=seed)


def anything(decisions, seed, **more):
    """Take any setting."""
    assert set(decisions) >= {"depth", "channels"}
    return RandomSampler(seed=seed)


def nothing(decisions, seed):
    """Make no sampler."""
