"""Every statement against draws: cheap ones over thousands of parameters, whole vectors over few.

The tolerance is 5 standard errors, the standard error at least one draw's.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metrics.stability.theory.balls import (
    TwoBalls,
    corollary_12,
    corollary_15,
    theorem_4,
    theorem_5,
    theorem_6,
    theorem_6_sharper,
    theorem_8,
)
from metrics.stability.theory.coordinates import coordinates
from metrics.stability.theory.estimate import estimate, estimate_by_vectors
from metrics.stability.theory.half_balls import HalfBalls, theorem_18, theorem_19, theorem_20
from metrics.stability.theory.point import Point, theorem_1

DIMENSIONS, EACH, DRAWS = 200, 10, 20_000
WITHIN = 5.0


def statements(n, epsilon, delta, gamma, concentration, *, slow=True):
    """Yield each model with what the theorems say of it, where they are stated."""
    balls = TwoBalls(n, epsilon, concentration=concentration)
    if epsilon <= 1:
        yield balls, theorem_4(balls)
    if epsilon <= delta <= 1 + epsilon:
        yield balls, theorem_5(balls, delta)
    if epsilon <= 1 + delta:
        yield balls, theorem_6(balls, delta)
        if slow:
            yield balls, theorem_6_sharper(balls, delta)
    yield balls, theorem_8(balls, gamma)
    if concentration == 1 and epsilon <= delta:
        point, halves = Point(n, epsilon), HalfBalls(n, epsilon)
        yield point, theorem_1(point, delta)
        yield halves, theorem_19(halves, delta)
        if delta <= 1 + epsilon:
            yield halves, theorem_18(halves, delta)
        if slow:
            touching = HalfBalls(n, 0.0)
            yield touching, theorem_20(touching, delta)


def test_2000_parameter_sets():
    """No bound is on the wrong side, and no estimate beyond 5 standard errors.

    Lengths are log-uniform or within a few of the spread 1/√n, where probabilities are neither 0
    nor 1. The ten sets of a dimension share their 20,000 draws; the two statements that take an
    optimisation are looked at in every third set.
    """
    rng = np.random.default_rng(2023)
    wrong, far, compared, middling, seen = [], [], 0, 0, set()
    every = np.arange(2, 1001)
    small_first = (1 / every) / (1 / every).sum()
    for n in rng.choice(every, DIMENSIONS, replace=False, p=small_first).tolist():
        unit = coordinates(n, (2, DRAWS), rng)
        for i in range(EACH):
            epsilon = float(np.exp(rng.uniform(np.log(0.01), np.log(8))))
            delta = float(np.exp(rng.uniform(np.log(0.02), np.log(10))))
            if i % 2:
                epsilon, delta = (float(v) for v in rng.uniform(0.01, 5, 2) / np.sqrt(n))
            gamma = float(rng.uniform(0, min(2, 6 / np.sqrt(n))))
            concentration = float(rng.choice([1.0, rng.uniform(1, 1 + 4 / n), rng.uniform(1, 3)]))
            point = (n, epsilon, delta, gamma, concentration)
            for model, found in statements(*point, slow=i % 3 == 0):
                compared += 1
                seen.add((found.theorem, concentration > 1))
                middling += 0.01 < found.exact < 0.99
                if not found.holds:
                    wrong.append((model, found))
                drawn = estimate(model, found.event, found.size, unit)
                if drawn.sigmas(found.exact) > WITHIN:
                    far.append((model, found, drawn))
    assert wrong == []
    assert far == []
    assert compared > 7500
    assert middling > 3500
    assert len(seen) == 4 * 2 + 4


VECTORS = [
    (model, statement)
    for n in (1, 2, 10, 60)
    for epsilon, delta in ((0.0, 0.3), (0.1, 0.4), (0.4, 1.2))
    for concentration in (1.0, 1.02, 1.5)
    for model, statement in statements(n, epsilon, delta, delta / 2, concentration)
    if not statement.ours or statement.theorem == "theorem 20"
]
LARGE = TwoBalls(30, 1.1, radius=3.0, concentration=1.1)
VECTORS += [(LARGE, corollary_12(LARGE, 2.0)), (LARGE, corollary_15(LARGE, 2.0))]


def test_whole_vectors_and_the_classifier():
    generator = torch.Generator().manual_seed(11)
    far = []
    for model, found in VECTORS:
        drawn = estimate_by_vectors(model, found.event, found.size, 4000, generator)
        if drawn.sigmas(found.exact) > WITHIN:
            far.append((model, found, drawn))
    assert far == []
    assert len(VECTORS) > 190


def test_points_lie_where_the_model_says():
    generator = torch.Generator().manual_seed(3)
    x, labels = TwoBalls(4, 0.5, radius=2.0, concentration=1.25).sample(5000, generator)
    centre = torch.zeros(5000, 4, dtype=torch.float64)
    centre[:, 0] = (2 * labels - 1) * 0.5
    assert ((x - centre).norm(dim=1) <= 2).all()
    assert x.shape == (5000, 4)
    assert x.dtype == torch.float64
    assert 2300 < labels.sum() < 2700
    x, labels = HalfBalls(4, 0.5).sample(5000, generator)
    centre[:, 0] = (2 * labels - 1) * 0.5
    assert ((x - centre).norm(dim=1) <= 1).all()
    assert ((2 * labels - 1) * x[:, 0] >= 0.5).all()
    point = Point(4, 0.5).points(labels, generator)
    assert torch.equal(point, centre)


@pytest.mark.parametrize("event", ["correct", "susceptible", "noise", "transfer"])
def test_the_same_generator_gives_the_same_count(event):
    model = TwoBalls(5, 0.1)
    one, other = (
        estimate_by_vectors(model, event, 0.2, 1000, torch.Generator().manual_seed(7))
        for _ in range(2)
    )
    assert one == other
    assert 0 < one.hits < 1000
