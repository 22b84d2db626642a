"""Interval arithmetic reaches both ends, and no further."""

from __future__ import annotations

import torch

from metrics.bounds.linear.interval import Interval, through
from metrics.bounds.operations import Sum


def test_a_difference_goes_from_the_least_less_the_largest_to_the_opposite():
    low, high = torch.tensor([[1.0, -2.0]]).double(), torch.tensor([[3.0, 5.0]]).double()
    a = Interval(low, high, torch.tensor([5.0]).double())
    b = Interval(-high, 2 * high, torch.tensor([10.0]).double())
    found = through(Sum((1.0, -0.5)), [a, b], low)
    torch.testing.assert_close(found.lower, low - high, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.upper, 1.5 * high, rtol=0, atol=1e-9)
