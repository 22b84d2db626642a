"""Pools (Peck et al. 2017, theorem 4.4, and its tighter forms)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from metrics.bounds.gains.form import Form
from metrics.bounds.operations import Pool, Windows, coverage
from metrics.bounds.spectral import matrix_norm, outward


def printed(pool: Pool) -> Form:
    """Return the paper's t for t x t outputs, for an L_p pool t q^(2/p)."""
    if not has_theorem(pool):
        return simple(pool)
    t = math.sqrt(len(pool.rows) * len(pool.columns))
    if pool.kind == "power":
        return Form("t q^(2/p)", t * math.prod(pool.kernel) ** (1 / pool.power), "quoted")
    return Form("t", t, "quoted")


def has_theorem(pool: Pool) -> bool:
    """Whether the paper has one: not for sums, which move by more than their values."""
    if pool.kind != "average":
        return True
    assert pool.divisors is not None
    axes = zip((pool.rows, pool.columns), pool.divisors, strict=True)
    most = [max(len(p) / float(d) for p, d in zip(*axis, strict=True)) for axis in axes]
    return math.prod(most) <= 1


def simple(pool: Pool) -> Form:
    """Return m (max), m / q (average) or m max(1, q^(2/p - 1)) (L_p), exact for single windows.

    m^2 is the number of windows that a value lies in at most; q the side of a window. Where windows
    of an average differ, at the edges, each value's share of all its windows is added up.
    """
    m = math.sqrt(coverage(pool.rows) * coverage(pool.columns))
    if pool.kind == "max":
        return Form("m", m)
    if pool.kind == "average":
        assert pool.divisors is not None
        shares = (
            _shares(p, d) for p, d in zip((pool.rows, pool.columns), pool.divisors, strict=True)
        )
        return Form("m / q", outward(math.sqrt(math.prod(shares))))
    window = math.prod(pool.kernel)
    return Form("m max(1, q^(2/p - 1))", outward(m * max(1, window ** (1 / pool.power - 0.5))))


def tight(pool: Pool) -> list[Form]:
    """Return the simple form, and of an average its norm.

    An average over rectangles is one along the height, then one along the width, and its norm the
    product of theirs.
    """
    forms = [simple(pool)]
    if pool.kind == "average":
        assert pool.divisors is not None
        norms = (
            matrix_norm(_matrix(p, d))
            for p, d in zip((pool.rows, pool.columns), pool.divisors, strict=True)
        )
        forms.append(Form("‖A_h‖₂‖A_w‖₂", math.prod(norms), "exact"))
    return forms


def _shares(read: Windows, divisors: Tensor) -> float:
    """Return the largest sum, over the windows that a place lies in, of length / divisor^2."""
    sums: dict[int, float] = {}
    for places, divisor in zip(read, divisors.tolist(), strict=True):
        for place in places:
            sums[place] = sums.get(place, 0.0) + len(places) / divisor**2
    return max(sums.values())


def _matrix(read: Windows, divisors: Tensor) -> Tensor:
    """Return ``(outputs, inputs)``: an average along one axis."""
    size = 1 + max(max(places) for places in read if places)
    matrix = torch.zeros(len(read), size, dtype=torch.float64)
    for row, (places, divisor) in enumerate(zip(read, divisors.tolist(), strict=True)):
        matrix[row, list(places)] = 1 / divisor
    return matrix
