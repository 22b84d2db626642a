"""Which trials go on at an epoch: asynchronous successive halving, by one value or by several.

A trial that reaches a rung is compared with those that were there before it and goes on at once or
is stopped (Li et al. 2020, ASHA); several values are compared by non-dominated sorting (Schmucker
et al. 2021, MO-ASHA). Nothing here knows of Tune, and the ledger has all that a resume needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from nas.errors import InputError
from nas.ledger.results import reached_rungs
from nas.search.layers import Layers, Ranking
from nas.types import FloatArray


def rung_epochs(grace_period: int, reduction_factor: float, maximum: int) -> tuple[int, ...]:
    """Return the rungs below ``maximum``: ``grace_period * reduction_factor ** k`` for k >= 0.

    One between two epochs stands at the later of them.

    Raises:
        ValueError: a value out of range.
    """
    if grace_period < 1 or not reduction_factor > 1:
        raise ValueError(
            "expected grace_period >= 1 and reduction_factor > 1, got "
            f"{grace_period} and {reduction_factor}"
        )

    def passed(epoch: int) -> int:
        return math.floor(math.log(epoch / grace_period) / math.log(reduction_factor) + 1e-9)

    later = range(grace_period + 1, maximum)
    first = [grace_period] if grace_period < maximum else []
    return (*first, *(epoch for epoch in later if passed(epoch) > passed(epoch - 1)))


class Rungs:
    """Who reached which rung with what, and who goes on.

    Of the n trials at a rung, the newcomer included, the best ``max(1, floor(n / η))`` go on. So
    the first always does, and the next ones, below 2η, only where nobody there is better. Equals go
    on together: the newcomer is stopped where that many are strictly better. One with a value that
    is not finite never goes on; it counts in n, behind all others. Who went on is not asked again.

    Several values: better is whoever is in an earlier non-dominated front, and within one front
    whoever has the larger crowding distance (Deb et al. 2002, NSGA-II) among its different values.
    Both ends of a front are equals there, so with two values one trial more can go on.

    Args:
        epochs: of the rungs, see :func:`rung_epochs`.
        directions: the values that decide -> ``max`` or ``min``.
        reduction_factor: η > 1.

    Raises:
        ValueError: no directions or unknown ones, or η out of range.
    """

    def __init__(
        self, epochs: Iterable[int], directions: Mapping[str, str], reduction_factor: float
    ) -> None:
        if not directions or not set(directions.values()) <= {"max", "min"}:
            raise ValueError(f"expected directions max or min, got {dict(directions)}")
        if not reduction_factor > 1:
            raise ValueError(f"expected reduction_factor > 1, got {reduction_factor}")
        self.epochs = tuple(epochs)
        self.directions = dict(directions)
        self._factor = reduction_factor
        self._signs = np.array([1.0 if way == "max" else -1.0 for way in directions.values()])
        self._at: dict[int, dict[int, dict[str, float]]] = {epoch: {} for epoch in self.epochs}
        self._layers: dict[int, Layers | Ranking] = {}

    def arrive(self, number: int, epoch: int, values: Mapping[str, float], last: int) -> bool:
        """Note a trial after an epoch where that is a rung; return whether it goes on.

        Args:
            number: of the trial.
            epoch: which it has just ended.
            values: all are kept for the ledger; those in ``directions`` decide.
            last: the trial's own last epoch, which is never a rung.
        """
        if epoch not in self._at or epoch >= last:
            return True
        there = self._at[epoch]
        if number in there:
            self._layers.pop(epoch, None)
        there[number] = dict(values)
        mine = self._judged(values)
        if not np.isfinite(mine).all():
            return False
        if epoch in self._layers:
            self._layers[epoch].add(mine)
        else:
            self._layers[epoch] = self._layered(there)
        room = max(1, math.floor(len(there) / self._factor + 1e-9))
        return self._layers[epoch].better_than(mine) < room

    def _judged(self, values: Mapping[str, float]) -> FloatArray:
        """Return ``(k,)``: the values that decide, larger is better."""
        judged: FloatArray = self._signs * np.array([float(values[n]) for n in self.directions])
        return judged

    def _layered(self, there: Mapping[int, Mapping[str, float]]) -> Layers | Ranking:
        """Return the finite ones of a rung in their order; kept, since the next only adds one."""
        rows = np.array([self._judged(values) for values in there.values()])
        finite = rows[np.isfinite(rows).all(axis=1)]
        return Ranking(finite) if len(self.directions) == 1 else Layers(finite)

    def reached(self, number: int) -> dict[str, dict[str, float]]:
        """Return what the ledger keeps of a trial: rung -> all its values there, as JSON types."""
        return {str(e): self._at[e][number] for e in self.epochs if number in self._at[e]}

    def forget(self, number: int) -> None:
        """Take a trial back that begins again, or that nobody will know of."""
        for epoch, there in self._at.items():
            if there.pop(number, None) is not None:
                self._layers.pop(epoch, None)

    def refill(self, results: Iterable[Mapping[str, Any]]) -> None:
        """Note what the ledger knows, as ``Search.results()`` gives it.

        Raises:
            InputError: a result without a value that decides here.
        """
        self._layers = {}
        for result in results:
            number = result["number"]
            for epoch, values in reached_rungs(result).items():
                if missing := set(self.directions) - set(values):
                    raise InputError(
                        f"trial {number}: expected {sorted(missing)} at rung {epoch}, got "
                        f"{sorted(values)}"
                    )
                if epoch in self._at:
                    self._at[epoch][number] = values
