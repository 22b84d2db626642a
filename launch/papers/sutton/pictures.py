"""The picture of the theory: certain attacks and harmless noise of one length, over dimensions."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from launch.show.style import GREY, colours, finished, panels
from metrics.stability.theory.balls import TwoBalls, theorem_4, theorem_5, theorem_6
from metrics.stability.theory.coordinates import coordinates
from metrics.stability.theory.estimate import estimate
from metrics.stability.theory.half_balls import HalfBalls, theorem_20, theorem_20_limit
from metrics.stability.theory.statement import Statement

EPSILON, DELTA = 0.1, 0.4
DRAWS = 20_000
DIMENSIONS = np.unique(np.geomspace(1, 10_000, 49).round().astype(int)).tolist()
DRAWN = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000)
DELTAS = np.geomspace(0.05, 20, 40).tolist()
NAMES = {
    "correct": "accuracy",
    "susceptible": f"an attack of length {DELTA} exists",
    "noise": f"noise of length up to {DELTA} misleads",
}


def picture(rng: np.random.Generator) -> Figure:
    """Return both panels: two balls over n at one ε and δ, theorem 20 over δ."""
    figure, (left, right) = panels(2, width=12)
    _over_dimensions(left, rng)
    _theorem_20(right, rng)
    return finished(figure, left, right)


def _at(n: int) -> list[Statement]:
    model = TwoBalls(n, EPSILON)
    return [theorem_4(model), theorem_5(model, DELTA), theorem_6(model, DELTA)]


def _over_dimensions(axes: Axes, rng: np.random.Generator) -> None:
    found = [_at(n) for n in DIMENSIONS]
    for colour, several in zip(colours(3), zip(*found, strict=True), strict=True):
        name = NAMES[several[0].event]
        axes.plot(DIMENSIONS, [s.exact for s in several], color=colour, label=name)
        bounds = [np.nan if s.vacuous else s.bound for s in several]
        axes.plot(DIMENSIONS, bounds, "--", color=colour, linewidth=1)
        shares = [
            estimate(TwoBalls(n, EPSILON), several[0].event, DELTA, _unit(n, rng)).share
            for n in DRAWN
        ]
        axes.plot(DRAWN, shares, ".", color=colour)
    axes.plot([], [], "--", color=GREY, linewidth=1, label="the paper's bound")
    axes.plot([], [], ".", color=GREY, label=f"{DRAWS} draws")
    axes.set(xscale="log", xlabel="dimension n", ylabel="probability")
    axes.set_title(f"two balls, centres {EPSILON} from the plane: theorems 4, 5 and 6", fontsize=10)


def _theorem_20(axes: Axes, rng: np.random.Generator) -> None:
    for colour, n in zip(colours(3), (1, 10, 1000), strict=True):
        model = HalfBalls(n, 0.0)
        exact = [theorem_20(model, delta).exact for delta in DELTAS]
        axes.plot(DELTAS, exact, color=colour, label=f"exact, n = {n}")
        shares = [estimate(model, "noise", d, _unit(n, rng)).share for d in DELTAS[::4]]
        axes.plot(DELTAS[::4], shares, ".", color=colour)
    limits = [theorem_20_limit(delta) for delta in DELTAS]
    axes.plot(DELTAS, [s.exact for s in limits], ":", color="black", label="limit, arctan(δ)/π")
    axes.plot(DELTAS, [s.bound for s in limits], "--", color=GREY, label="the paper's bound on it")
    axes.set(xscale="log", xlabel="length δ of the noise", ylabel="probability of the other class")
    axes.set_title("half-balls that touch, theorem 20", fontsize=10)


def _unit(n: int, rng: np.random.Generator) -> np.ndarray:
    return coordinates(n, (2, DRAWS), rng)
