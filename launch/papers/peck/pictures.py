"""Figures 2 to 4 of Peck et al. 2017, and the band between both ends of adversarial training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from launch.papers.peck.measured import Measured
from launch.show.bands import band
from launch.show.style import GREY, colours, finished, panels
from metrics.bounds.gains.form import MODES

BINS = 40


def picture(nets: Sequence[Measured]) -> Figure:
    """Return three panels of the first net, and one of every net with both ends."""
    ended = [net for net in nets if net.ends]
    figure, axes = panels(3 + len(ended), width=5 * (3 + len(ended)))
    first = nets[0]
    title = f"{first.run}, trial {first.number}, {first.recipe} training"
    _norms(axes[0], first)
    _bounds(axes[1], first)
    _ratios(axes[2], first)
    axes[1].set_title(title, fontsize=10)
    for place, net in zip(axes[3:], ended, strict=True):
        assert net.ends is not None
        band(place, net.ends.lower, net.ends.upper, net.ends.epsilon)
        place.set_xlabel(f"length ε of a perturbation, {net.ends.norm}")
        place.set_title(f"{net.run}, trial {net.number}, {net.recipe} training", fontsize=10)
    return finished(figure, *axes)


def _norms(axes: Axes, net: Measured) -> None:
    """Figure 2: how long the attacks are."""
    sizes = [net.attacks[i] for i in net.attacked]
    axes.hist(sizes, BINS, color=GREY, label="fast gradient sign (upper bound)")
    axes.set(xlabel="L2 norm, pixels in [0, 1]", ylabel="images")


def _bounds(axes: Axes, net: Measured) -> None:
    """Figure 3: how large the lower bounds are, in each mode."""
    for colour, mode in zip(colours(len(MODES)), MODES, strict=True):
        values = [v for v in net.bounds[mode] if v > 0]
        if values:
            bins = np.geomspace(min(values), max(values) * (1 + 1e-9), BINS).tolist()
            axes.hist(values, bins, color=colour, alpha=0.7, label=f"lower bound, {mode}")
    axes.set(xscale="log", xlabel="L2 norm, pixels in [0, 1]", ylabel="images")


def _ratios(axes: Axes, net: Measured) -> None:
    """Figure 4: log10 of attack over bound of each image; below 0 one of the two is wrong."""
    for colour, mode in zip(colours(len(MODES)), MODES, strict=True):
        values = np.asarray(net.ratios(mode))
        below = f"{mode}, {net.violations(mode)} below 0"
        axes.plot(np.where(np.isfinite(values), values, np.nan), ".", color=colour, markersize=3,
                  label=below)  # fmt: skip
    axes.axhline(0, color="black", linewidth=1)
    axes.set(xlabel="image", ylabel="log10(attack / lower bound)")
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.3 * (high - low), high)  # room for the legend
