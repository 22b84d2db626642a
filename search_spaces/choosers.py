"""Who answers a space's decisions: given answers, a random generator, or an Optuna trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from search_spaces.architecture import Choice


class Chooser(Protocol):
    """Whatever answers decisions: an Optuna trial, :class:`Answers`, :class:`RandomChooser`."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return one of ``choices`` for the decision ``name``."""


@dataclass(frozen=True)
class Answers:
    """A chooser that repeats given answers.

    Raises:
        ValueError: a decision has no answer here, or one that is not among its choices.
    """

    answers: Mapping[str, Choice]

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        if name not in self.answers:
            raise ValueError(f"expected an answer for decision {name!r}, got {list(self.answers)}")
        answer = self.answers[name]
        if answer not in choices:
            raise ValueError(f"{name}: expected one of {list(choices)}, got {answer!r}")
        return choices[choices.index(answer)]  # as the space writes it: 2, not 2.0


@dataclass(frozen=True)
class RandomChooser:
    """A chooser that draws uniformly from a seeded numpy generator."""

    rng: np.random.Generator

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return choices[int(self.rng.integers(len(choices)))]
