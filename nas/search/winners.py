"""Which results win, and whose weights are worth keeping.

A result is what the ledger holds of a finished trial (``nas.search.search.Search.results``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from nas.ledger.fronts import pareto_front
from nas.search.trust import suspicions, trusted_first
from nas.trial.deviations import cautious


def best(
    results: Iterable[Mapping[str, Any]], objective: str, direction: str
) -> Mapping[str, Any] | None:
    """Return the complete result with the best ``objective``, the earlier of equals, or None.

    Of repeated trials the worse ends of mean ± deviation are compared, so that what wins is not
    the luckiest seed: see :func:`nas.trial.deviations.cautious`. One with a suspicion flag only
    wins where every one has some: see :func:`overruled`.
    """
    complete = [
        r
        for r in results
        if r["status"] == "complete" and math.isfinite(r["scores"].get(objective, math.nan))
    ]
    sign = 1 if direction == "max" else -1
    trusted = trusted_first(complete)
    return max(
        trusted, key=lambda r: sign * cautious(r["scores"], objective, direction), default=None
    )


def overruled(
    results: Iterable[Mapping[str, Any]],
    winner: Mapping[str, Any],
    objective: str,
    direction: str,
) -> list[Mapping[str, Any]]:
    """Return the suspicious results that score better than ``winner`` and did not win."""
    sign = 1 if direction == "max" else -1
    won = sign * cautious(winner["scores"], objective, direction)
    return [
        r
        for r in results
        if r["status"] == "complete"
        and suspicions(r["scores"])
        and sign * cautious(r["scores"], objective, direction) > won
    ]


def worth_keeping(
    results: Sequence[Mapping[str, Any]], objectives: Mapping[str, str], top: int
) -> list[Mapping[str, Any]]:
    """Return the results whose weights stay: the Pareto front and the ``top`` on each objective.

    Of repeated trials those on top by the mean, and by the end of it that decides the winner. The
    same again among those without a suspicion flag, from which the winner is taken. What is not
    worth keeping now never will be, so a search can pass what it kept and the newest.
    """
    complete = sorted(
        (r for r in results if r["status"] == "complete"), key=lambda r: r["number"]
    )  # of equals the earlier one is kept, as in :func:`best`
    believed = [r for r in complete if not suspicions(r["scores"])]
    kept = {
        r["number"] for some in (complete, believed) for r in _front_and_top(some, objectives, top)
    }
    return [r for r in complete if r["number"] in kept]


def least_worthy_first(
    kept: Sequence[Mapping[str, Any]], objectives: Mapping[str, str]
) -> list[Mapping[str, Any]]:
    """Return complete results in the order in which their weights may go where room is short.

    First those with a suspicion flag, then those that are not on the Pareto front (of those without
    a flag), then those of the front; of each the worst on the first objective first, of equals the
    later. So the winner (:func:`best`) comes last.
    """
    first, direction = next(iter(objectives.items()))
    sign = 1 if direction == "max" else -1
    front: set[int] = set()
    for doubtful in (False, True):
        some = [r for r in kept if bool(suspicions(r["scores"])) == doubtful]
        values = np.array([[r["scores"][name] for name in objectives] for r in some])
        if some:
            on_front = np.flatnonzero(pareto_front(values, list(objectives.values())))
            front |= {some[int(i)]["number"] for i in on_front}
    winner = best(kept, first, direction)

    def worth(result: Mapping[str, Any]) -> tuple[Any, ...]:
        return (
            winner is not None and result["number"] == winner["number"],
            not suspicions(result["scores"]),
            result["number"] in front,
            sign * cautious(result["scores"], first, direction),
            -result["number"],
        )

    return sorted(kept, key=worth)


def _front_and_top(
    complete: Sequence[Mapping[str, Any]], objectives: Mapping[str, str], top: int
) -> list[Mapping[str, Any]]:
    if not complete:
        return []
    values = np.array([[r["scores"][name] for name in objectives] for r in complete])
    kept = set(np.flatnonzero(pareto_front(values, list(objectives.values()))))
    for column, (name, direction) in enumerate(objectives.items()):
        ends = np.array([cautious(r["scores"], name, direction) for r in complete])
        for judged in (values[:, column], ends):
            worst_last = -judged if direction == "max" else judged
            kept.update(np.argsort(worst_last, kind="stable")[:top])
    return [complete[int(i)] for i in sorted(kept)]
