"""Square in L2 keeps no tensor: one made while memory is estimated has no values."""

from __future__ import annotations

from metrics.attacks.square_l2 import peak


def test_a_peak_is_made_anew_each_time():
    first = peak(3)
    first.zero_()
    assert abs(peak(3).norm().item() - 1) < 1e-6
