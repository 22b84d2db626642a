"""Every reproduction, one after the other: one that fails is noted, and the next one begins."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from launch.papers.outcomes import DONE, FAILED, Outcome, outcome, read_outcomes, write_outcome
from launch.papers.planned import RUNS, Planned, carry_out, check_places, planned
from launch.show.reporter import Reporter
from nas.errors import InputError, one_line


def every(
    names: Iterable[str],
    report: Reporter,
    *,
    quick: bool,
    assignments: Sequence[str] = (),
    address: str | None = None,
    reuse: Sequence[Path] = (),
    base: Path = RUNS,
    carry: Callable[..., bool] = carry_out,
) -> dict[str, Outcome] | None:
    """Carry out reproductions in turn, and return what became of each; None where one was stopped.

    One that is done already, with the same settings, is left as it is.

    Args:
        names: of the reproductions.
        report: is told of them.
        quick: in small.
        assignments: ``key=value``, laid over every search.
        address: of a cluster.
        reuse: run directories whose trials are taken over.
        base: where run directories are.
        carry: carries out one.

    Raises:
        InputError: assignments that one of them refuses, before anything is searched.
    """
    names = list(names)
    plans: dict[str, Planned | Exception] = {}
    for name in names:
        try:
            plans[name] = planned(name, quick=quick, assignments=assignments, base=base)
        except InputError as error:
            if assignments:
                raise
            plans[name] = error
    found: dict[str, Outcome] = {}
    for place, (name, plan) in enumerate(plans.items(), start=1):
        before = f"[{place}/{len(names)}] {name}"
        if isinstance(plan, Exception):
            found[name] = outcome(FAILED, one_line(plan), seconds=0, quick=quick, key="")
            report.say(f"{before}: failed: {found[name].reason}")
            write_outcome(base, name, found[name])
            continue
        known = read_outcomes(base).get(name)
        if known and known.state == DONE and known.key == plan.key and plan.there:
            found[name] = known
            report.say(f"{before}: there already")
            continue
        report.say(f"\n{before}")
        ended = noted(plan, partial(carry, plan, report, address=address, reuse=reuse), base)
        if ended is None:
            return None
        found[name] = ended
        if ended.state == FAILED:
            report.say(f"{before}: failed: {ended.reason}")
    return found


def noted(
    plan: Planned, make: Callable[[], bool], base: Path, *, again: bool = False
) -> Outcome | None:
    """Carry out one, and note what became of it; None where it was stopped.

    Args:
        plan: what.
        make: carries it out, False where it was stopped.
        base: where run directories are.
        again: raise what it raises, once it is noted.
    """
    known = read_outcomes(base).get(plan.name)
    spent = known.seconds if known and known.key == plan.key else 0.0
    start, problem = time.monotonic(), None
    try:
        check_places(plan)
        if not make():
            return None
    except Exception as error:  # noqa: BLE001  it is noted, said, and stands on the page
        problem = error
    seconds = time.monotonic() - start + spent
    state, reason = (FAILED, one_line(problem)) if problem else (DONE, "")
    ended = outcome(state, reason, seconds=seconds, quick=plan.quick, key=plan.key)
    write_outcome(base, plan.name, ended)
    if problem and again:
        raise problem
    return ended
