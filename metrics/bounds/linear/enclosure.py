"""What every step of a model lies between, for all images of a ball: forwards and backwards.

Going forwards, each step's interval follows from those before it (Gowal et al. 2018). Where a bend
or a maximum depends on a unit, the unit is also followed back to the images through the lines of
what lies behind (CROWN, Zhang et al. 2018, arXiv 1811.00866; over any graph as Xu et al. 2020,
arXiv 2002.12920), and the better bounds are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from metrics.bounds.linear.ball import Ball
from metrics.bounds.linear.interval import SLACK, Interval, through
from metrics.bounds.linear.lines import (
    Lines,
    activation_lines,
    below,
    bend,
    pool_lines,
    undecided,
)
from metrics.bounds.linear.rows import Rows, added, settled, unit_rows
from metrics.bounds.linear.spread import Spread
from metrics.bounds.linear.transposes import Transposes
from metrics.bounds.operations import Activation, Operation, Pool, Rearrangement
from metrics.bounds.program import Program
from metrics.deadline import check

CHUNK = 1_000_000  # coefficients of the rows of one step at a time: 8 MB
FIRST = 64  # rows, before it is known how many coefficients they have


@dataclass(eq=False)
class Enclosure:
    """The intervals and lines of a program's steps, for the images of a ball.

    Attributes:
        program: what is bounded.
        ball: over which images.
        transposes: keeps the matrices of the program's convolutions from one ball to the next.
        intervals: of the steps so far.
        lines: of those that bend.
    """

    program: Program
    ball: Ball
    transposes: Transposes
    intervals: list[Interval] = field(default_factory=list)
    lines: dict[int, Lines] = field(default_factory=dict)

    def least(self, start: int, rows: Rows) -> tuple[Tensor, int]:
        """Return a lower bound ``(R,)`` of ``rows`` over step ``start``.

        And the largest number of coefficients that a row had on the way.
        """
        waiting = {start: rows}
        total = torch.zeros(len(rows.values), dtype=torch.float64, device=rows.values.device)
        terms = total.clone()
        most = 0
        for i in range(start, -1, -1):
            if i not in waiting:
                continue
            check()
            rows, step = waiting.pop(i), self.program.steps[i]
            most = max(most, rows.values[:1].numel())
            size = torch.linalg.vector_norm(rows.values.flatten(1), 1, dim=1)
            terms = terms + size * self.intervals[i].magnitude[rows.image]
            if step.operation is None:
                return total + self.ball.least(rows) - SLACK * terms, most
            sources = [self.program.steps[j].shape for j in step.sources]
            constant: Tensor | None
            if i in self.lines:
                back, constant = below(self.lines[i], step.operation, rows, sources[0])
                found = [settled(back, sources[0])]
            else:
                found, constant = self.transposes.back(step.operation, rows, step.shape, sources)
            if constant is not None:
                total = total + constant
            for j, one in zip(step.sources, found, strict=False):
                shape = self.program.steps[j].shape
                waiting[j] = added(waiting[j], one, shape) if j in waiting else one
        return total - SLACK * terms, most  # nothing depends on the images


def enclosure(
    program: Program, ball: Ball, transposes: Transposes, last: int, *, backwards: bool = True
) -> Enclosure:
    """Return what steps 0 to ``last`` lie between.

    Args:
        program: that ``supports`` takes.
        ball: the images.
        transposes: of the program.
        last: number of a step.
        backwards: False stays with interval arithmetic.
    """
    found = Enclosure(program, ball, transposes)
    users = program.users()
    spreads: dict[int, Spread] = {}
    for i, step in enumerate(program.steps[: last + 1]):
        check()
        if step.operation is None:
            largest = torch.ones_like(ball.epsilon)
            found.intervals.append(Interval(ball.lower, ball.upper, largest))
            spreads[i] = Spread.of(ball)  # in L infinity, only for which intervals are exact
            continue
        inputs = [found.intervals[j] for j in step.sources]
        interval = through(step.operation, inputs, ball.images)
        exact = False
        if len(step.sources) == 1 and step.sources[0] in spreads:
            spread = spreads[step.sources[0]].through(step.operation)
            if spread is not None:
                spreads[i] = spread
                if ball.norm == "l2":
                    ends = spread.ends(ball.epsilon, interval.magnitude)
                    interval = interval.within(*ends)
                exact = True
        found.intervals.append(interval)
        bends = [u for u in users[i] if u <= last and _bends(program, u)]
        if backwards and bends and not exact and not _bent(program, i):
            wanted = torch.stack([undecided(_operation(program, u), interval) for u in bends]).any(
                0
            )
            found.intervals[i] = _refined(found, i, wanted)
        if _bends(program, i):
            found.lines[i] = _lines(program, i, found.intervals[step.sources[0]])
    return found


def _operation(program: Program, i: int) -> Operation:
    operation = program.steps[i].operation
    assert operation is not None
    return operation


def _bends(program: Program, i: int) -> bool:
    operation = program.steps[i].operation
    return isinstance(operation, Activation) or (
        isinstance(operation, Pool) and not operation.affine
    )


def _bent(program: Program, i: int) -> bool:
    """Return whether going backwards from step i could not improve its interval."""
    while isinstance(program.steps[i].operation, Rearrangement):
        (i,) = program.steps[i].sources
    return _bends(program, i)


def _lines(program: Program, i: int, z: Interval) -> Lines:
    operation = program.steps[i].operation
    if isinstance(operation, Pool):
        return pool_lines(operation, z)
    slope = bend(_operation(program, i))
    assert slope is not None
    return activation_lines(slope, z)


def _refined(found: Enclosure, i: int, wanted: Tensor) -> Interval:
    """Return the interval of step i, the ``wanted`` units ``(N, *shape)`` followed backwards."""
    interval, shape = found.intervals[i], found.program.steps[i].shape
    owner, unit = wanted.flatten(1).nonzero().unbind(1)
    ends = []
    for sign in (1.0, -1.0):

        def make(part: Tensor, sign: float = sign) -> Rows:
            return unit_rows(shape, owner[part], unit[part], sign, window=len(shape) == 3)

        ends.append(sign * in_chunks(found, i, len(owner), make, owner.device))
    lower, upper = interval.lower.flatten(1).clone(), interval.upper.flatten(1).clone()
    lower[owner, unit] = torch.maximum(lower[owner, unit], ends[0])
    upper[owner, unit] = torch.minimum(upper[owner, unit], ends[1])
    return Interval(
        lower.view_as(interval.lower), upper.view_as(interval.upper), interval.magnitude
    )


def in_chunks(
    found: Enclosure, start: int, count: int, make: Callable[[Tensor], Rows], device: torch.device
) -> Tensor:
    """Return lower bounds of ``count`` rows over a step, as many at a time as memory is for.

    Args:
        found: what lies behind the step.
        start: the step.
        make: from numbers of rows ``(r,)`` to the rows.
        count: how many there are.
        device: of the numbers.
    """
    bounds, begin, size = [torch.zeros(0, dtype=torch.float64, device=device)], 0, FIRST
    while begin < count:
        part = torch.arange(begin, min(count, begin + size), device=device)
        values, most = found.least(start, make(part))
        bounds.append(values.nan_to_num(-torch.inf, -torch.inf, -torch.inf))
        begin, size = begin + size, max(1, CHUNK // most)
    return torch.cat(bounds)
