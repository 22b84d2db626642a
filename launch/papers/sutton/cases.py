"""The numbers of the models at round parameters, one line each, to be held against other code."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from metrics.stability.theory.balls import TwoBalls, theorem_4, theorem_5, theorem_6, theorem_8
from metrics.stability.theory.coordinates import coordinates
from metrics.stability.theory.estimate import Model, estimate
from metrics.stability.theory.half_balls import (
    HalfBalls,
    theorem_18,
    theorem_19,
    theorem_20,
    theorem_20_limit,
)
from metrics.stability.theory.point import Point, theorem_1
from metrics.stability.theory.statement import AT_LEAST, Statement

DRAWS = 200_000

Case = tuple[str, Model | None, Statement]
"""Parameters, what to draw from (None: it is a limit), and what the theorem says."""


def cases() -> Iterator[Case]:
    """Yield the cases: uniform balls (A = 1), by theorem, length and dimension."""
    for epsilon, dimensions in ((0.1, (10, 100, 1000)), (0.3, (10, 100))):
        for n in dimensions:
            balls = TwoBalls(n, epsilon)
            yield f"n = {n}, ε = {epsilon}", balls, theorem_4(balls)
    for n in (10, 100):
        balls = TwoBalls(n, 0.1)
        yield f"n = {n}, ε = 0.1, δ = 0.4", balls, theorem_5(balls, 0.4)
    for n in (10, 100, 1000):
        point = Point(n, 0.1)
        yield f"n = {n}, ε = 0.1, δ = 1", point, theorem_1(point, 1)
    for n, epsilon in ((10, 0.1), (100, 0.1), (1000, 0.1), (100, 0.3)):
        balls = TwoBalls(n, epsilon)
        yield f"n = {n}, ε = {epsilon}, δ = 1", balls, theorem_6(balls, 1)
    for n in (10, 100):
        balls = TwoBalls(n, 0.1)
        yield f"n = {n}, γ = 0.3", balls, theorem_8(balls, 0.3)
    for n in (10, 100):
        halves = HalfBalls(n, 0.1)
        yield f"n = {n}, ε = 0.1, δ = 0.4", halves, theorem_18(halves, 0.4)
    for n in (10, 100, 1000):
        halves = HalfBalls(n, 0.1)
        yield f"n = {n}, ε = 0.1, δ = 1", halves, theorem_19(halves, 1)
    for delta in (1, 0.5, 2):
        for n in (10, 100):
            halves = HalfBalls(n, 0)
            yield f"n = {n}, δ = {delta}", halves, theorem_20(halves, delta)
        yield f"n → ∞, δ = {delta}", None, theorem_20_limit(delta)


def case_lines(rng: np.random.Generator) -> list[str]:
    """Return a line a case: exact, bound, and the share of 200,000 draws."""
    lines = [f"  {'':<11} {'':<25} {'exact':>10}   {'bound':<11} {'drawn':>9}"]
    for parameters, model, statement in cases():
        drawn = "-"
        if model is not None:
            unit = coordinates(model.n, (2, DRAWS), rng)
            drawn = f"{estimate(model, statement.event, statement.size, unit).share:.4g}"
        sign = "≥" if statement.side == AT_LEAST else "≤"
        lines.append(
            f"  {statement.theorem:<11} {parameters:<25} {statement.exact:>10.5g}   "
            f"{sign} {statement.bound:<9.5g} {drawn:>9}"
        )
    return lines
