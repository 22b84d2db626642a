"""The share of images that a perturbation of each length breaks, between what is proved and seen.

An image's smallest perturbation is at least its certified lower bound and at most an attack's
length, its upper bound. So the share of images that some perturbation up to epsilon breaks lies
between the distribution functions of the two.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from launch.show.style import GREY, colours

FAR = 10.0  # upper over lower: medians farther apart are drawn on a logarithmic axis

_Floats = NDArray[np.float64]


def band(axes: Axes, lower: ArrayLike, upper: ArrayLike, epsilon: float | None = None) -> None:
    """Draw both distribution functions, and fill what lies between.

    Args:
        axes: to draw on; its x axis is logarithmic where the medians of the two are far apart.
        lower: ``(N,)`` certified lower bounds, 0 of wrong images.
        upper: ``(N,)`` lengths of attacks, 0 of wrong images, infinity where none was found.
        epsilon: where to draw an upright line; the legend then has the shares certified and broken
            there.

    Raises:
        ValueError: no images, or as many of one as not of the other.
    """
    below, above = (np.asarray(v, dtype=np.float64) for v in (lower, upper))
    if below.shape != above.shape or below.ndim != 1 or not len(below):
        raise ValueError(
            f"expected as many lower bounds as upper ones, got {below.shape} and {above.shape}"
        )
    ends = np.concatenate([below, above])
    ends = ends[np.isfinite(ends) & (ends > 0)]
    if epsilon:
        ends = np.append(ends, epsilon)
    if not len(ends):
        ends = np.ones(1)
    begin, end = (ends.min() / 1.2, ends.max() * 1.2) if _far(below, above) else (0, ends.max())
    lengths = np.unique(np.concatenate([[begin], ends, [end]]))
    at_most, at_least = share_up_to(below, lengths), share_up_to(above, lengths)
    proved, seen = colours(2)
    axes.fill_between(
        lengths, at_least, at_most, step="post", color=GREY, alpha=0.25, linewidth=0,
        label="not known",
    )  # fmt: skip
    axes.step(
        lengths, at_most, where="post", color=proved, label="not certified (lower bound up to ε)"
    )
    axes.step(lengths, at_least, where="post", color=seen, label="broken (attack found up to ε)")
    if epsilon is not None:
        certified, broken = 1 - share_up_to(below, epsilon), share_up_to(above, epsilon)
        axes.axvline(
            epsilon, color="black", linestyle=":", linewidth=1,
            label=f"ε = {epsilon:.3g}: {certified:.0%} certified, {broken:.0%} broken",
        )  # fmt: skip
    if _far(below, above):
        axes.set_xscale("log")
    axes.set(xlim=(begin, end), ylim=(0, 1.02), ylabel="share of images")


def share_up_to(values: _Floats, lengths: ArrayLike) -> _Floats:
    """Return for each length the share of ``(N,)`` values that are no larger."""
    return np.searchsorted(np.sort(values), np.asarray(lengths), side="right") / len(values)


def _far(below: _Floats, above: _Floats) -> bool:
    right = (below > 0) & np.isfinite(above)
    return bool(right.any() and np.median(above[right]) > FAR * np.median(below[right]))
