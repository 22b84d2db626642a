"""The decisions of a search as our samplers see them: choices, neighbours, keys and numbers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.types import FloatArray

Params = Mapping[str, Any]

ENUMERABLE = 20_000  # combinations up to which a sampler may look at every one
REMEMBERED = 2**17  # proposals whose key is kept: a local search asks for the same ones again


class Decisions(dict[str, tuple[Any, ...]]):
    """Every decision with its choices, in order, and what a search knows of them besides.

    Args:
        decisions: name -> choices.
        key: params -> equal for two that need not both be tried; by default they are equal.
        features: params -> what a predictor may learn from beside the choices; by default nothing.

    Raises:
        ValueError: a decision without choices.
    """

    def __init__(
        self,
        decisions: Mapping[str, Sequence[Any]],
        *,
        key: Callable[[Params], str] | None = None,
        features: Callable[[Params], Mapping[str, float]] | None = None,
    ) -> None:
        super().__init__({name: tuple(choices) for name, choices in decisions.items()})
        for name, choices in self.items():
            if not choices:
                raise ValueError(f"decision {name!r}: expected one or more choices, got none")
        self._of_key, self._features = key, features
        self._all: list[dict[str, Any]] | None = None
        self._encoded: Encoded | None = None

        @lru_cache(maxsize=REMEMBERED)
        def cached(answers: tuple[Any, ...]) -> str:
            if key is None:
                return json.dumps(answers, default=repr)
            return key(dict(zip(self, answers, strict=True)))

        self._key = cached

    def __reduce__(self) -> tuple[Callable[..., Decisions], tuple[Any, ...]]:
        """Leave out what is remembered; ``key`` and ``features`` must be picklable themselves."""
        made = partial(Decisions, key=self._of_key, features=self._features)
        return made, (dict(self),)

    def key(self, params: Params) -> str:
        """Return what two proposals share that are one and the same to the search."""
        return self._key(tuple(params[name] for name in self))

    def size(self) -> int:
        """Return the number of combinations."""
        return int(np.prod([len(choices) for choices in self.values()], dtype=object))

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        """Return one uniform choice for every decision."""
        return {name: choices[rng.integers(len(choices))] for name, choices in self.items()}

    def neighbours(self, params: Params) -> list[dict[str, Any]]:
        """Return every set of choices that differs from ``params`` in one decision."""
        here = {name: params[name] for name in self}
        return [
            {**here, name: choice}
            for name, choices in self.items()
            for choice in choices
            if choice != here[name]
        ]

    def everything(self) -> list[dict[str, Any]]:
        """Return every combination, once for each key, the last decision fastest."""
        if self._all is None:
            combinations = itertools.product(*self.values())
            each = (dict(zip(self, answers, strict=True)) for answers in combinations)
            self._all = list({self.key(params): params for params in reversed(list(each))}.values())
            self._all.reverse()
        return self._all

    def everything_encoded(self) -> Encoded:
        """Return :meth:`everything` as numbers."""
        if self._encoded is None:
            self._encoded = self.encode(self.everything())
        return self._encoded

    def encode(self, several: Sequence[Params]) -> Encoded:
        """Return choices as numbers for a predictor."""
        codes = [
            [choices.index(params[name]) for name, choices in self.items()] for params in several
        ]
        named = [self._features(params) if self._features else {} for params in several]
        return Encoded(np.array(codes, dtype=np.int64).reshape(len(several), len(self)), named)


class Encoded:
    """Some proposals as numbers.

    Attributes:
        codes: ``(n, decisions)``, the index of every choice.
        named: of each, the numbers that the space knows about it.
    """

    def __init__(self, codes: NDArray[np.int64], named: Sequence[Mapping[str, float]]) -> None:
        self.codes, self.named = codes, named
        self._names: tuple[str, ...] | None = None
        self._columns: dict[tuple[str, ...], FloatArray] = {}

    def names(self) -> tuple[str, ...]:
        """Return the names of all named numbers, sorted."""
        if self._names is None:
            self._names = tuple(sorted({name for numbers in self.named for name in numbers}))
        return self._names

    def features(self, names: tuple[str, ...]) -> FloatArray:
        """Return ``(n, len(names))``, zero where a proposal has no such number."""
        if names not in self._columns:
            column = {name: index for index, name in enumerate(names)}
            values = np.zeros((len(self.named), len(names)))
            for row, numbers in enumerate(self.named):
                for name, value in numbers.items():
                    if name in column:
                        values[row, column[name]] = value
            self._columns = {names: values}
        return self._columns[names]
