"""The band between lower bounds and attacks: the curves that it draws, against counting."""

from __future__ import annotations

import numpy as np
import pytest

from launch.show.bands import band, share_up_to
from launch.show.style import finished, panels

LOWER = np.array([0.0, 0.1, 0.1, 0.2, 0.4])
UPPER = np.array([0.0, 0.1, 0.3, np.inf, 0.5])


def drawn(lower, upper, epsilon=None):
    figure, (axes,) = panels(1)
    band(axes, lower, upper, epsilon)
    finished(figure, axes)
    figure.canvas.draw()
    return axes


def curve(axes, beginning):
    (line,) = [line for line in axes.lines if line.get_label().startswith(beginning)]
    x, y = line.get_data()
    assert line.get_drawstyle() == "steps-post"
    return lambda epsilon: y[np.flatnonzero(x <= epsilon)[-1]]


def test_the_curves_are_the_shares_counted():
    axes = drawn(LOWER, UPPER, 0.3)
    broken, uncertified = curve(axes, "broken"), curve(axes, "not certified")
    for epsilon in (0.0, 0.05, 0.1, 0.25, 0.3, 0.45, 0.5):
        assert broken(epsilon) == sum(u <= epsilon for u in UPPER) / 5
        assert uncertified(epsilon) == sum(not v > epsilon for v in LOWER) / 5
        assert broken(epsilon) <= uncertified(epsilon)
    assert axes.get_xscale() == "linear"
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert "ε = 0.3: 20% certified, 60% broken" in labels


def test_far_ends_are_drawn_on_a_logarithmic_axis():
    axes = drawn(LOWER / 1000, UPPER)
    assert axes.get_xscale() == "log"
    begin, end = axes.get_xlim()
    assert 0 < begin < 1e-4
    assert end > 0.5
    assert curve(axes, "not certified")(0.01) == 1
    assert curve(axes, "broken")(begin) == 0.2  # wrong already


def test_nothing_found_and_nothing_proved():
    axes = drawn([0, 0], [np.inf, np.inf])
    assert curve(axes, "broken")(0.5) == 0
    assert curve(axes, "not certified")(0.5) == 1
    assert share_up_to(np.array([1.0, 2.0]), 1.0) == 0.5
    with pytest.raises(ValueError, match="as many lower bounds as upper"):
        drawn([1], [1, 2])
