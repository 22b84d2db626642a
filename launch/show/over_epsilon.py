"""The picture of robust accuracy over epsilon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from launch.show.style import finished, panels


def figure_of(curve: Mapping[str, Any], title: str) -> Figure:
    """Return the curve with its intervals."""
    figure, (axes,) = panels(1)
    shares = [100 * share for share in curve["accuracies"]]
    low, high = ([100 * v for v in curve[end]] for end in ("low", "high"))
    radii = curve["epsilons"]
    levels = curve["attack"]["norm"] == "linf"
    if levels:
        radii = [255 * epsilon for epsilon in radii]
    axes.fill_between(radii, low, high, alpha=0.2, linewidth=0, label="95 % interval")
    axes.plot(radii, shares, "o-", label=curve["attack"]["name"])
    unit = "ε, of 255 (L∞)" if levels else "ε (L2)"
    axes.set(xlabel=unit, ylabel="accuracy, %", ylim=(0, 100))
    axes.set_title(title.replace("$", r"\$"), fontsize=10)
    return finished(figure, axes)
