"""What a search does: its space, what it varies besides, its objectives and its sampler."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from nas.errors import InputError
from nas.ledger.records import told_apart
from nas.ledger.study import Direction
from nas.ledger.table import Legend
from nas.samplers.decisions import Decisions
from nas.samplers.registry import SAMPLERS, SamplerFactory
from nas.trial.trial import Trial
from search_spaces import SearchSpace


@dataclass(frozen=True)
class SearchPlan:
    """What a search does, without where it runs.

    Attributes:
        space: gives the architectures.
        template: the trial of which every other is a copy, its architecture aside.
        vary: ``recipe``, ``recipe.KEY``, ``data.KEY`` or ``repeat`` -> values searched beside the
            architecture; those of ``recipe`` are mappings of several of its keys.
        objectives: score -> ``max`` or ``min``.
        sampler: makes the sampler, called with (decisions, seed, ``**sampler_settings``).
        trials: how many different trials; None goes on until the space is used up.
        fixed: decision of the space -> the one choice that is not searched.
    """

    space: SearchSpace
    template: Trial
    vary: Mapping[str, Sequence[Any]]
    objectives: Mapping[str, str]
    sampler: SamplerFactory
    sampler_settings: Mapping[str, Any] = field(default_factory=dict)
    trials: int | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def directions(self) -> list[Direction]:
        """The objectives' directions in Optuna's words."""
        return ["maximize" if d == "max" else "minimize" for d in self.objectives.values()]

    @cached_property
    def decisions(self) -> Decisions:
        """Every decision, those of ``vary`` last, with choices that Optuna can store."""
        varied = {name: tuple(map(_storable, values)) for name, values in self.vary.items()}
        asked = self.space.decisions()
        answered = {name: (choice,) for name, choice in self.fixed.items()}
        return Decisions(
            {**asked, **answered, **varied},
            key=lambda params: self.trial(params).key,
            features=lambda params: self.space.features({name: params[name] for name in asked}),
        )

    @property
    def size(self) -> int:
        """The number of combinations of answers, an upper bound on different trials."""
        only = self.sampler_settings.get("only") if self.sampler is SAMPLERS["grid"] else None
        listed = only[0] if only else {}
        free = (len(c) for name, c in self.decisions.items() if name not in listed)
        return math.prod(free) * len(only or [{}])

    @property
    def budget(self) -> int:
        """How many trials there will be at most."""
        return min(self.size, self.trials or self.size)

    @property
    def told_apart(self) -> list[str]:
        """The decisions that tell trials apart; ``architecture`` for more than a few of a space."""
        return told_apart(self.decisions, self.vary)

    @property
    def legend(self) -> Legend:
        """What the columns of the search's table are."""
        return Legend(self.objectives, list(self.decisions), self.told_apart)

    def trial(self, params: Mapping[str, Any]) -> Trial:
        """Return the trial of one answer to every decision."""
        architecture = self.space.architecture({n: params[n] for n in self.space.decisions()})
        trial = replace(self.template, architecture=architecture)
        for name, value in self.overrides(params).items():
            trial = trial.varied(name, value)
        return trial

    def recipe_values(self, key: str) -> list[Any]:
        """Return the values that ``recipe.key`` has in some trial."""
        if f"recipe.{key}" in self.vary:
            return list(self.vary[f"recipe.{key}"])
        own = getattr(self.template.recipe, key)
        return [values.get(key, own) for values in self.vary.get("recipe", [{}])]

    def overrides(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of ``vary`` behind the stored choices."""
        return {
            name: values[[_storable(v) for v in values].index(params[name])]
            for name, values in self.vary.items()
        }


def fixed_choices(space: SearchSpace, fix: Mapping[str, Any]) -> dict[str, Any]:
    """Return decision -> choice of what is not searched, every choice as the space has it.

    Raises:
        InputError: no such decision, or not one of its choices.
    """
    decisions = space.decisions()
    fixed = {}
    for name, choice in fix.items():
        if name not in decisions:
            raise InputError(f"fix: expected decisions among {', '.join(decisions)}, got {name!r}")
        if choice not in decisions[name]:
            raise InputError(f"fix.{name}: expected one of {list(decisions[name])}, got {choice!r}")
        fixed[name] = decisions[name][decisions[name].index(choice)]
    return fixed


def _storable(value: Any) -> Any:
    """Return a scalar as it is and anything else as JSON: what Optuna can keep as a choice."""
    scalar = value is None or isinstance(value, str | int | float | bool)
    return value if scalar else json.dumps(value)
