"""Searches answered from a table: no training, thousands of queries a second.

The space, the sampler, the ledger and :class:`nas.search.search.Search` are those of a real search;
only the answer to a proposal is a row of the table. That is how samplers are compared: with many
seeds, on numbers that somebody else measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import optuna

from nas.benchmark.table import Table, TableTrial
from nas.errors import InputError
from nas.ledger.fronts import Front, hypervolume, pareto_front
from nas.samplers.decisions import Decisions
from nas.search.plan import SearchPlan
from nas.search.search import Search
from nas.seeds import derive_seed
from nas.types import FloatArray

MAX_MISSES = 2000  # proposals in a row without a row


@dataclass(frozen=True)
class TablePlan(SearchPlan):
    """A search whose trials are rows of ``table``."""

    table: Table = field(kw_only=True)

    @cached_property
    def decisions(self) -> Decisions:
        """Those of the table, with all that is known of them: one object for many searches."""
        return self.table.decisions

    def trial(self, params: Mapping[str, Any]) -> Any:
        """Return the :class:`TableTrial` of one answer to every decision."""
        return self.table.trial(params)


def plan_search(
    table: Table, sampler: Any, settings: Mapping[str, Any], *, seed: int = 0
) -> TablePlan:
    """Return the plan of one search; ``sampler`` and ``settings`` as of :class:`SearchPlan`."""
    first = next(iter(table.space))
    template: Any = TableTrial(first, key="", row=None, seed=seed)
    return TablePlan(
        table.space, template, {}, table.objectives, sampler, settings, None, table=table
    )


def search_table(plan: TablePlan, budget: int) -> list[int]:
    """Search and return the rows in the order in which they were asked for, ``budget`` at most.

    Fewer where the table has no more, or the sampler finds no more of them. An architecture without
    a row is told as a failure and is no query; a row without a score is one.

    Raises:
        InputError: the table has next to none of the space's architectures.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=plan.directions, pruner=optuna.pruners.NopPruner())
    search = Search(study, plan)
    asked: list[int] = []
    misses = 0
    most = min(budget, len(plan.table.scores))
    while len(asked) < most and (proposal := search.propose()) is not None:
        trial: Any = proposal.trial
        search.finish(proposal.number, _answer(plan.table, trial.row))
        misses = misses + 1 if trial.row is None else 0
        if trial.row is not None:
            asked.append(trial.row)
        if misses == MAX_MISSES:
            break
    if not asked and misses:
        raise InputError(
            f"expected a table with a fair part of the {plan.size} architectures of the space, "
            f"got {len(plan.table.scores)}: none of {misses} proposals has a row"
        )
    return asked


def _answer(table: Table, row: int | None) -> dict[str, Any]:
    if row is None:
        return {"status": "invalid", "reason": "the table has no such row", "scores": {}}
    scores = dict(zip(table.objectives, table.scores[row].tolist(), strict=True))
    return {"status": "complete", "reason": "", "scores": scores}


def best_so_far(table: Table, rows: Sequence[int], budget: int) -> FloatArray:
    """Return ``(budget,)``: the best score after every query, or the hypervolume of several.

    One objective: in its own unit. Several: the share of the box between the table's worst and best
    values that the rows so far dominate. NaN before the first score; a search that ended early
    keeps its last value.
    """
    curve = np.full(budget, math.nan)
    if not rows:
        return curve
    gains = table.gains[list(rows)]
    if gains.shape[1] == 1:
        best = table.signs[0] * np.fmax.accumulate(gains[:, 0])
    else:
        best = _hypervolumes(table, gains)
    curve[: len(best)] = best
    curve[len(best) :] = best[-1]
    return curve


def optimum(table: Table) -> float:
    """Return the best that :func:`best_so_far` can reach."""
    gains = table.gains[~np.isnan(table.gains).any(axis=1)]
    if gains.shape[1] == 1:
        return float(table.signs[0] * gains.max())
    front = pareto_front(gains, ["max"] * gains.shape[1])
    return hypervolume(_unit(table, gains[front]))


def _unit(table: Table, gains: FloatArray) -> FloatArray:
    """Return gains as shares of the way from the table's worst values to its best."""
    known = table.gains[~np.isnan(table.gains).any(axis=1)]
    low, high = known.min(axis=0), known.max(axis=0)
    unit: FloatArray = (gains - low) / np.where(high > low, high - low, 1.0)
    return unit


def _hypervolumes(table: Table, gains: FloatArray) -> FloatArray:
    """Return the hypervolume after every row; it changes only where a row enters the front."""
    unit = _unit(table, gains)
    volumes = np.full(len(unit), math.nan)
    front = Front(unit.shape[1])
    volume = math.nan
    for index, point in enumerate(unit):
        if not np.isnan(point).any() and not front.covers(point):
            front.add(point)
            volume = hypervolume(front.rows)
        volumes[index] = volume
    return volumes


def run_seed(seed: int, name: str, repeat: int) -> int:
    """Return the seed of one of several searches."""
    return derive_seed(seed, "table-search", name, repeat) % 2**32
