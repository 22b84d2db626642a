"""What the statements say at the ends of their domains, and what they refuse."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
import torch

from metrics.stability.theory.balls import (
    TwoBalls,
    corollary_10,
    corollary_12,
    corollary_15,
    corollary_17,
    theorem_4,
    theorem_5,
    theorem_6,
    theorem_6_sharper,
    theorem_8,
)
from metrics.stability.theory.caps import cap_fraction
from metrics.stability.theory.estimate import (
    Estimate,
    attack_direction,
    estimate,
    estimate_by_vectors,
)
from metrics.stability.theory.half_balls import (
    HalfBalls,
    theorem_18,
    theorem_19,
    theorem_20,
    theorem_20_limit,
)
from metrics.stability.theory.point import Point, theorem_1
from metrics.stability.theory.statement import AT_LEAST, AT_MOST, Statement

PAIRS = [
    (theorem_5, corollary_12, (0.3, 0.7)),
    (theorem_6, corollary_15, (0.0, 0.5, 2.0)),
    (theorem_8, corollary_17, (0.0, 0.4, 2.0)),
]


@pytest.mark.parametrize("concentration", [1.0, 1.5])
def test_corollaries_are_the_theorems_in_other_units(concentration):
    for n, radius in itertools.product((2, 40), (0.25, 1.0, 3.0)):
        small = TwoBalls(n, 0.2, concentration=concentration)
        large = TwoBalls(n, 0.2 * radius, radius, concentration)
        one, other = theorem_4(small), corollary_10(large)
        assert (other.bound, other.exact) == pytest.approx((one.bound, one.exact), rel=1e-12)
        for theorem, corollary, sizes in PAIRS:
            for size in sizes:
                one, other = theorem(small, size), corollary(large, radius * size)
                assert (other.bound, other.exact) == pytest.approx((one.bound, one.exact))
                assert (other.event, other.side) == (one.event, one.side)
                assert other.holds


def test_the_ball_that_a_class_fills_touches_the_near_side():
    model = TwoBalls(3, 0.4, radius=2.0, concentration=4.0)
    assert model.filled == 0.5
    assert model.depth + 1.5 == pytest.approx(0.4)
    outward = model.outward(np.array([-1.0, 1.0]))
    assert outward[1] == pytest.approx(2.0 - 0.4)  # as far beyond the plane as the ball of radius r
    assert outward[0] == pytest.approx(1.0 - 0.4)


def test_a_vacuous_bound_says_so():
    assert theorem_4(TwoBalls(10, 0.1)).bound > 0
    for statement in (
        theorem_4(TwoBalls(10, 0.1, concentration=1.5)),
        theorem_5(TwoBalls(10, 0.1, concentration=1.5), 0.4),
        theorem_6(TwoBalls(10, 0.1, concentration=1.5), 1),
        theorem_6_sharper(TwoBalls(10, 0.1, concentration=1.5), 1),
        theorem_8(TwoBalls(10, 0.1, concentration=1.5), 0.3),
        theorem_6(TwoBalls(10, 0.0), 1),
        theorem_18(HalfBalls(10, 0.4), 0.4),
        theorem_4(TwoBalls(3000, 0.1, concentration=3)),
    ):
        assert statement.vacuous, statement
        assert statement.holds
        assert statement.gap == pytest.approx(
            statement.exact if statement.side == AT_LEAST else 1 - statement.exact
        )
    assert theorem_4(TwoBalls(3000, 0.1, concentration=3)).bound == -math.inf
    # A √(1 - ε²) < 1 is where bounds of large n begin to say something
    assert theorem_4(TwoBalls(3000, 0.75, concentration=1.5)).bound == pytest.approx(1, abs=1e-5)
    assert theorem_4(TwoBalls(3000, 0.74, concentration=1.5)).vacuous


def test_the_bracket_of_theorem_8_is_cut_before_it_is_squared():
    model = TwoBalls(10, 0.1, concentration=1.5)
    bracket = 1 - 0.5 * 1.5**10 * (1 - 0.15**2) ** 5
    assert bracket**2 > 1  # what a blind square would claim
    assert theorem_8(model, 0.3).bound == 0


def test_a_wrong_side_is_seen():
    assert not Statement("theorem 4", "correct", 0, AT_LEAST, 0.6, 0.599999).holds
    assert not Statement("theorem 6", "noise", 1, AT_MOST, 1e-20, 1.1e-20).holds
    assert Statement("theorem 6", "noise", 1, AT_MOST, 1.2, 0.3).gap == pytest.approx(0.7)


def test_nothing_and_touching():
    """δ = 0 and ε = 0 are limits: no division, no logarithm of 0."""
    assert theorem_1(Point(9, 0.0), 1e-300).exact == theorem_1(Point(9, 0.0), 2).bound == 0.5
    nothing = theorem_1(Point(9, 0.0), 0.0)
    assert nothing.exact == nothing.bound == 0
    assert theorem_1(Point(9, 0.3), 0.3).exact == theorem_1(Point(9, 0.3), 0.3).bound == 0
    assert theorem_4(TwoBalls(9, 0.0)).exact == theorem_4(TwoBalls(9, 0.0)).bound == 0.5
    assert theorem_5(TwoBalls(9, 0.0), 0.0).exact == theorem_5(TwoBalls(9, 0.0), 0.0).bound == 0.5
    assert theorem_5(TwoBalls(9, 0.1), 1.1).exact == theorem_5(TwoBalls(9, 0.1), 1.1).bound == 1
    still = theorem_6(TwoBalls(9, 0.3), 0)
    assert still.exact == cap_fraction(9, 0.3)
    assert still.bound == pytest.approx((1 - 0.09) ** 4.5)
    assert theorem_6_sharper(TwoBalls(9, 0.3), 0).bound == pytest.approx(still.bound / 2)
    assert theorem_6(TwoBalls(9, 1.5), 0.5).bound == theorem_6(TwoBalls(9, 1.5), 0.5).exact == 0
    for concentration in (1.0, 1.5, 1.7):  # noise that just reaches the plane
        for n, delta in itertools.product((1, 2, 10), np.linspace(0.01, 7, 50).tolist()):
            model = TwoBalls(n, 1 + delta, concentration=concentration)
            reached = theorem_6(model, delta)
            assert reached.exact == reached.bound == theorem_6_sharper(model, delta).bound == 0
    assert theorem_8(TwoBalls(9, 0.3), 0).exact == pytest.approx(0.5)
    assert theorem_8(TwoBalls(9, 0.3), 2).exact == theorem_8(TwoBalls(9, 0.3), 2).bound == 1
    assert theorem_18(HalfBalls(9, 0.2), 0.2).exact == 0
    assert theorem_18(HalfBalls(9, 0.1), 1.1).exact == 1
    assert theorem_19(HalfBalls(9, 0.2), 0.2).exact == 0 == theorem_19(HalfBalls(9, 0.2), 0.2).bound
    assert theorem_19(HalfBalls(9, 0.0), 0.0).exact == theorem_19(HalfBalls(9, 0), 0).bound == 0
    assert theorem_19(HalfBalls(9, 0.0), 2.0).bound == 0.5
    assert theorem_20(HalfBalls(9, 0.0), 0.0).exact == theorem_20(HalfBalls(9, 0.0), 0.0).bound == 0
    assert theorem_20_limit(0.0).exact == theorem_20_limit(0.0).bound == 0
    assert theorem_20_limit(1e6).exact == pytest.approx(0.5, abs=1e-6)
    assert theorem_20_limit(1e15).bound == pytest.approx(0.5)
    assert theorem_20(HalfBalls(9, 0.0), 1e15).bound == pytest.approx(0.5)


@pytest.mark.parametrize("delta", [0.02, 0.1, 0.5, 1.0, 2.0, 5.0, 40.0])
def test_theorem_20_between_its_ends(delta):
    exact = [theorem_20(HalfBalls(n, 0.0), delta).exact for n in (1, 2, 5, 30, 1000, 100_000)]
    limit = theorem_20_limit(delta)
    ends = sorted((exact[0], limit.exact))
    assert exact == pytest.approx(sorted(exact, reverse=delta > 1), rel=1e-9)
    assert exact[0] == pytest.approx(delta / 4 if delta <= 1 else 0.5 - 1 / (4 * delta))
    assert all(ends[0] - 1e-9 <= value <= ends[1] + 1e-9 for value in exact)
    assert exact[-1] == pytest.approx(limit.exact, rel=1e-4)
    finite = [theorem_20(HalfBalls(n, 0.0), delta) for n in (1, 10, 1000, 100_000)]
    assert all(s.holds and s.ours and not s.vacuous for s in finite)
    assert finite[-1].bound == pytest.approx(limit.bound, rel=1e-3)
    assert all(statement.exact >= limit.bound for statement in finite)


def test_theorem_20_is_as_far_below_the_truth_as_the_paper_lets_it_be():
    ratios = [theorem_20_limit(d).exact / theorem_20_limit(d).bound for d in (0.1, 5)]
    assert ratios == pytest.approx([40, 1.5], rel=0.05)


def test_theorem_20_bound_is_a_supremum_over_p():
    for n, delta in ((1, 0.3), (10, 1.0), (400, 3.0), (400, 1e4)):
        p = np.linspace(1e-6, 1 - 1e-9, 100_001)
        h = np.sqrt(1 - (1 - p) ** (2 / n))
        expected = (p * cap_fraction(n, h / delta)).max()
        assert theorem_20(HalfBalls(n, 0.0), delta).bound == pytest.approx(expected, rel=1e-6)


def test_the_sharper_theorem_6_is_the_least_over_all_splits():
    for n, epsilon, delta, concentration in (
        (10, 0.1, 1.0, 1.0), (100, 1.3, 0.5, 1.0), (30, 0.9, 2.0, 1.2), (50, 0.8, 0.1, 1.3),
    ):  # fmt: skip
        model = TwoBalls(n, epsilon, concentration=concentration)
        t = np.linspace(max(0.0, epsilon - 1), min(delta, epsilon), 200_001)
        point = 0.5 * concentration**n * np.maximum(1 - (epsilon - t) ** 2, 0) ** (n / 2)
        expected = (0.5 * (1 - (t / delta) ** 2) ** (n / 2) + point).min()
        found = theorem_6_sharper(model, delta)
        assert found.bound == pytest.approx(expected, rel=1e-7)
        assert found.ours
        assert found.holds
        assert found.bound <= theorem_6(model, delta).bound


def test_the_sharper_theorem_6_is_never_above_the_papers():
    rng = np.random.default_rng(6)
    for _ in range(300):
        n, delta = int(np.exp(rng.uniform(0, 8))), float(rng.uniform(0.01, 3))
        model = TwoBalls(n, float(rng.uniform(0, 1 + delta)))
        assert theorem_6_sharper(model, delta).bound <= theorem_6(model, delta).bound


@pytest.mark.parametrize("loss", ["mse", "cross-entropy"])
@pytest.mark.parametrize("steepness", [0.5, 4.0])
def test_theorem_7_the_gradient_is_the_way_to_the_plane(loss, steepness):
    n = 20
    x, labels = TwoBalls(n, 0.1).sample(500, torch.Generator().manual_seed(0))
    x.requires_grad_()
    soft = torch.sigmoid(steepness * x[:, 0])
    truth = labels.double()
    if loss == "mse":
        total = (soft - truth).square().sum()
    else:
        total = torch.nn.functional.binary_cross_entropy(soft, truth, reduction="sum")
    (gradient,) = torch.autograd.grad(total, x)
    unit = gradient / gradient.norm(dim=1, keepdim=True)
    assert (unit - attack_direction(labels, n)).abs().max() < 1e-6
    assert 100 < labels.sum() < 400


def test_theorem_7_fails_in_float32_where_the_sigmoid_saturates():
    x = torch.tensor([[-60.0], [60.0]], requires_grad=True)
    wrong = (torch.sigmoid(x[:, 0]) - torch.tensor([0.0, 1.0])).square().sum()
    (gradient,) = torch.autograd.grad(wrong, x)
    assert (gradient == 0).all()


def test_a_point_on_the_plane_is_not_led_beyond_by_no_noise():
    unit = np.array([[0.1, 0.2], [0.5, -0.5]])
    assert estimate(Point(3, 0.0), "noise", 0.0, unit).hits == 0
    assert estimate(Point(3, 0.0), "noise", 1.0, unit).hits == 1


def test_standard_errors():
    assert Estimate(50, 100).sigmas(0.5) == 0
    assert Estimate(60, 100).sigmas(0.5) == pytest.approx(2)
    assert Estimate(1, 100).sigmas(0.0) == 1  # never less than one draw
    assert Estimate(1, 4).share == 0.25


REFUSED = [
    (lambda: TwoBalls(0, 0.1), "n: expected an integer >= 1, got 0"),
    (lambda: TwoBalls(2.5, 0.1), "n: expected an integer >= 1, got 2.5"),
    (lambda: TwoBalls(2, -0.1), "epsilon: expected a finite number >= 0, got -0.1"),
    (lambda: TwoBalls(2, math.nan), "epsilon: expected a finite number >= 0, got nan"),
    (lambda: TwoBalls(2, 0.1, 0.0), "radius: expected a finite number > 0, got 0.0"),
    (
        lambda: TwoBalls(2, 0.1, concentration=0.5),
        "concentration: expected a finite number >= 1, got 0.5",
    ),
    (lambda: HalfBalls(True, 0.1), "n: expected an integer >= 1, got True"),
    (lambda: HalfBalls(2, math.inf), "epsilon: expected a finite number >= 0, got inf"),
    (lambda: Point(0, 0.1), "n: expected an integer >= 1, got 0"),
    (lambda: Point(2, -1.0), "epsilon: expected a finite number >= 0, got -1.0"),
    (
        lambda: theorem_1(Point(2, 0.5), 0.4),
        "delta: expected a finite number >= 0.5 in theorem 1, got 0.4",
    ),
    (
        lambda: theorem_4(TwoBalls(2, 1.5)),
        "epsilon: expected 0 <= epsilon <= 1 in theorem 4, got 1.5",
    ),
    (
        lambda: theorem_4(TwoBalls(2, 0.5, 2.0)),
        "radius: expected 1 in theorem 4, got 2.0; its corollary has a radius",
    ),
    (
        lambda: corollary_10(TwoBalls(2, 2.5, 2.0)),
        "epsilon: expected 0 <= epsilon <= 2 in corollary 10, got 2.5",
    ),
    (
        lambda: theorem_5(TwoBalls(2, 0.5), 0.4),
        "delta: expected 0.5 <= delta <= 1.5 in theorem 5, got 0.4",
    ),
    (
        lambda: corollary_12(TwoBalls(2, 0.5, 2.0), 3.0),
        "delta: expected 0.5 <= delta <= 2.5 in corollary 12, got 3.0",
    ),
    (
        lambda: theorem_6(TwoBalls(2, 2.5), 1),
        "epsilon: expected 0 <= epsilon <= 2 in theorem 6, got 2.5",
    ),
    (
        lambda: theorem_6_sharper(TwoBalls(2, 0.5), math.inf),
        "delta: expected a finite number >= 0 in theorem 6, got inf",
    ),
    (
        lambda: theorem_8(TwoBalls(2, 0.5), 2.1),
        "gamma: expected 0 <= gamma <= 2 in theorem 8, got 2.1",
    ),
    (
        lambda: corollary_17(TwoBalls(2, 0.5, 2.0), -0.1),
        "gamma: expected 0 <= gamma <= 4 in corollary 17, got -0.1",
    ),
    (
        lambda: theorem_18(HalfBalls(2, 0.5), 1.6),
        "delta: expected 0.5 <= delta <= 1.5 in theorem 18, got 1.6",
    ),
    (
        lambda: theorem_19(HalfBalls(2, 0.5), math.nan),
        "delta: expected a finite number >= 0.5 in theorem 19, got nan",
    ),
    (
        lambda: theorem_20(HalfBalls(2, 0.5), 1.0),
        "epsilon: expected 0 <= epsilon <= 0 in theorem 20, got 0.5",
    ),
    (
        lambda: theorem_20_limit(-1.0),
        "delta: expected a finite number >= 0 in theorem 20, got -1.0",
    ),
    (
        lambda: estimate(Point(2, 0.1), "attack", 1.0, np.zeros((2, 3))),
        "event: expected one of ['correct', 'susceptible', 'noise', 'transfer'], got 'attack'",
    ),
    (
        lambda: estimate(Point(2, 0.1), "noise", 1.0, np.zeros(3)),
        "unit: expected coordinates (2, N), got (3,)",
    ),
    (
        lambda: estimate_by_vectors(Point(2, 0.1), "attack", 1.0, 5, torch.Generator()),
        "event: expected one of ['correct', 'susceptible', 'noise', 'transfer'], got 'attack'",
    ),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_outside_the_domain(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()
