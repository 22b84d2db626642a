"""A trial as a value: all that its scores depend on, the machine aside.

Every seed is hashed from the search seed, the architecture, the recipe and the purpose, so that a
trial has the same scores whoever proposed it, in whatever worker and order.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from metrics.metric import Metric
from nas.data.config import DataConfig, Limit
from nas.seeds import derive_seed
from nas.trial.recipe import Recipe
from search_spaces import Architecture


@dataclass(frozen=True)
class Trial:
    """Architecture + recipe + data + seed: all that scores depend on, the machine aside.

    Attributes:
        repeat: tells trainings under different seeds apart.
        repeats: how many of those one trial is, from ``repeat`` on: its scores are their means.
    """

    architecture: Architecture
    recipe: Recipe
    data: DataConfig
    metrics: tuple[Metric, ...]
    seed: int = 0
    repeat: int = 0
    repeats: int = 1

    @property
    def key(self) -> str:
        """Equal for two trials that must have the same scores."""
        repeats = str(self.repeat) if self.repeats == 1 else f"{self.repeat}x{self.repeats}"
        return "-".join((self.architecture.hash, self.recipe.hash, self.data.hash, repeats))

    def varied(self, name: str, value: Any) -> Trial:
        """Return this trial with ``recipe.KEY``, ``data.KEY`` or ``repeat`` set to ``value``.

        ``recipe`` alone takes a mapping of several of its keys.

        Raises:
            ValueError: another name, or a value out of range.
        """
        part, _, key = name.partition(".")
        if name == "recipe":
            return replace(self, recipe=replace(self.recipe, **value))
        if part == "recipe" and key in {f.name for f in fields(Recipe)}:
            return replace(self, recipe=replace(self.recipe, **{key: value}))
        if part == "data" and key in {f.name for f in fields(DataConfig)}:
            if key == "limit":
                value = Limit(**value)
            if key == "classes" and value is not None:
                value = tuple(value)
            return replace(self, data=replace(self.data, **{key: value}))
        if name == "repeat":
            return replace(self, repeat=value)
        raise ValueError(f"expected recipe, recipe.KEY, data.KEY or repeat, got {name!r}")

    def seed_for(self, purpose: str) -> int:
        """Return the seed of one purpose; a trial's number and worker play no part."""
        return derive_seed(
            self.seed, self.architecture.hash, self.recipe.hash, self.repeat, purpose
        )
