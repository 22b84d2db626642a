"""The theorems of Sutton et al. 2023 over a grid: bound, exact probability, and independent draws.

The paper illustrates its model by draws alone. Here each bound stands beside the probability that
it bounds, which is computed (metrics/stability) and drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from launch.papers.sutton.cases import case_lines
from launch.papers.sutton.pictures import DELTA, EPSILON, picture
from launch.runs.run import Run
from launch.show.reporter import Reporter
from launch.show.view import View
from metrics.stability.theory.balls import (
    TwoBalls,
    theorem_4,
    theorem_5,
    theorem_6,
    theorem_6_sharper,
    theorem_8,
)
from metrics.stability.theory.caps import cap_fraction
from metrics.stability.theory.coordinates import coordinates
from metrics.stability.theory.estimate import Estimate, Model, estimate
from metrics.stability.theory.half_balls import HalfBalls, theorem_18, theorem_19, theorem_20
from metrics.stability.theory.point import Point, theorem_1
from metrics.stability.theory.statement import Statement

SEED = 2023
WITHIN = 5.0  # standard errors, beyond which a line says so


@dataclass(frozen=True)
class Grid:
    """Where the theorems are looked at: at all of its sets that lie in their domains.

    Attributes:
        n: dimensions; 3072 is a CIFAR-10 image.
        epsilon: distances from the plane.
        delta: lengths of attacks and noise, and the margins gamma of theorem 8.
        concentration: A; the half-balls and the point have none.
        draws: of each set.
    """

    n: tuple[int, ...] = (1, 2, 10, 100, 1000, 3072)
    epsilon: tuple[float, ...] = (0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1, 1.5, 2)
    delta: tuple[float, ...] = (0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1, 1.5, 2, 5, 10)
    concentration: tuple[float, ...] = (1.0, 1.5)
    draws: int = 20_000

    @property
    def size(self) -> int:
        """How many sets of all four it has."""
        return math.prod(map(len, (self.n, self.epsilon, self.delta, self.concentration)))


@dataclass(frozen=True)
class _Place:
    """The parameters of one statement; NaN for what it does not depend on."""

    n: int
    epsilon: float = math.nan
    delta: float = math.nan
    gamma: float = math.nan
    A: float = math.nan


def sutton_theory(runs: Sequence[Run], report: Reporter) -> View:
    """Return every theorem over the grid, beside what was drawn; it looks at no run."""
    return theory(Grid())


def theory(grid: Grid) -> View:
    """Return every theorem over a grid.

    The table has one row a statement: its parameters (``A`` the concentration), ``side``,
    ``bound`` (-inf or inf where A^n is too large for a float), ``vacuous``, ``ours`` (no bound of
    the paper's), ``exact``, ``monte_carlo``, ``draws``, and ``sigmas``, by how many standard errors
    the draws are off. All but the two bounds of theorem 6 have draws of their own.
    """
    rng = np.random.default_rng(SEED)
    table = _table(grid, rng)
    lines = [
        *_paradox(grid.n[-1]),
        "",
        f"{len(table)} statements at {grid.size} parameter sets, {grid.draws} draws each.",
        "Gap: |bound - exact| of the bounds that say something; drawn: the farthest share from",
        "the exact probability, in standard errors; wrong: bounds on the wrong side of it.",
        *_summary(table),
        "",
        "Uniform balls (A = 1) at round parameters:",
        *case_lines(rng),
    ]
    return View(table.drop(columns="holds"), lines, picture(rng))


def _table(grid: Grid, rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    drawn, last = Estimate(0, 1), None
    for place, model, statement in _statements(grid):
        if not (statement.theorem == "theorem 6" and statement.ours and last == place):
            unit = coordinates(place.n, (2, grid.draws), rng)
            drawn, last = estimate(model, statement.event, statement.size, unit), place
        rows.append(
            {
                "theorem": statement.theorem,
                **asdict(place),
                "side": statement.side,
                "bound": statement.bound,
                "vacuous": statement.vacuous,
                "ours": statement.ours,
                "exact": statement.exact,
                "monte_carlo": drawn.share,
                "draws": drawn.draws,
                "sigmas": drawn.sigmas(statement.exact),
                "holds": statement.holds,
            }
        )
    return pd.DataFrame(rows)


def _statements(grid: Grid) -> Iterator[tuple[_Place, Model, Statement]]:
    for n in grid.n:
        for a in grid.concentration:
            yield from _of_balls(grid, n, a)
        for epsilon in grid.epsilon:
            point, halves = Point(n, epsilon), HalfBalls(n, epsilon)
            for delta in (d for d in grid.delta if epsilon <= d):
                place = _Place(n, epsilon, delta)
                yield place, point, theorem_1(point, delta)
                yield place, halves, theorem_19(halves, delta)
                if delta <= 1 + epsilon:
                    yield place, halves, theorem_18(halves, delta)
        touching = HalfBalls(n, 0.0)
        for delta in grid.delta:
            yield _Place(n, 0.0, delta), touching, theorem_20(touching, delta)


def _of_balls(grid: Grid, n: int, a: float) -> Iterator[tuple[_Place, Model, Statement]]:
    for epsilon in grid.epsilon:
        model = TwoBalls(n, epsilon, concentration=a)
        if epsilon <= 1:
            yield _Place(n, epsilon, A=a), model, theorem_4(model)
        for delta in grid.delta:
            place = _Place(n, epsilon, delta, A=a)
            if epsilon <= delta <= 1 + epsilon:
                yield place, model, theorem_5(model, delta)
            if epsilon <= 1 + delta:
                yield place, model, theorem_6(model, delta)
                yield place, model, theorem_6_sharper(model, delta)
    model = TwoBalls(n, 0.0, concentration=a)  # the event is the same at any distance
    for gamma in (g for g in grid.delta if g <= 2):
        yield _Place(n, gamma=gamma, A=a), model, theorem_8(model, gamma)


def _summary(table: pd.DataFrame) -> list[str]:
    """Return a line a theorem: how many sets, how tight, how far the draws are off."""
    lines = [
        f"  {'':<20} {'sets':>5} {'vacuous':>8} {'median gap':>11} {'largest':>8} "
        f"{'drawn':>7} {'wrong':>6}"
    ]
    names = table["theorem"] + table["ours"].map({True: ", ours", False: ""})
    for name in dict.fromkeys(sorted(names, key=_number)):
        rows = table[names == name]
        telling = rows[~rows["vacuous"]]
        gaps = (telling["bound"] - telling["exact"]).abs()
        lines.append(
            f"  {name:<20} {len(rows):>5} {int(rows['vacuous'].sum()):>8} "
            f"{gaps.median():>11.2g} {gaps.max():>8.2g} "
            f"{rows['sigmas'].max():>5.2f} σ {int((~rows['holds']).sum()):>6}"
        )
    wrong, far = int((~table["holds"]).sum()), int((table["sigmas"] > WITHIN).sum())
    lines.append(
        f"Bounds on the wrong side of the exact probability: {wrong}; draws beyond "
        f"{WITHIN:g} standard errors: {far}."
    )
    return lines


def _paradox(n: int) -> list[str]:
    wrong, safe = cap_fraction(n, [EPSILON, DELTA - EPSILON])  # 1 - the exact values, to all digits
    noise = theorem_6(TwoBalls(n, EPSILON), DELTA).exact
    return [
        f"Two uniform balls in {n} dimensions, ε = {EPSILON}, δ = {DELTA}: the classifier is wrong "
        f"at {wrong:.2g} of the",
        f"points, {safe:.2g} have no attack of length δ, and noise uniform up to that length "
        f"misleads with {noise:.2g}.",
    ]


def _number(name: str) -> tuple[int, str]:
    return int(name.partition(",")[0].rpartition(" ")[2]), name
