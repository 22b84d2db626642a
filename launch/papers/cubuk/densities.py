"""Densities of the logit differences Δ_12, Δ_13 and Δ_14: of nets, their tails, and a picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray

from launch.papers.cubuk.nets import Net, first
from launch.papers.cubuk.printed import TAILS
from launch.show.columns import aligned
from launch.show.reporter import Reporter
from launch.show.style import log_scales
from metrics.universality import PowerLaw, fit_sample, logit_differences

BINS = 40
FEWEST = 20  # values behind a straight line
LEAST = 5  # numbers below the first bin's end, about
SMALL = 1 / 4  # of the median, up to which a straight line is fitted
NEAR = (0.1, 1.0)  # the shares of images below are printed
NORMAL = 1.959964  # standard errors of a 95 % interval

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Tail:
    """One logit difference of many images, or of random logits.

    Attributes:
        name, training: of the net.
        part: of the images, ``train`` or ``test``; "" of random logits.
        rank: j of Δ_1j.
        values: ``(N,)``, no NaN among them.
    """

    name: str
    training: str
    part: str
    rank: int
    values: Array

    @property
    def title(self) -> str:
        """Of which net and images."""
        images = {"train": "training images", "test": "test images"}.get(self.part, "")
        return ", ".join(text for text in (self.name, self.training, images) if text)

    @cached_property
    def law(self) -> PowerLaw:
        """The law of P(Δ_1j <= Δ); the density's exponent is less by 1."""
        return fit_sample(self.values)

    @property
    def exponent(self) -> tuple[float, float, float]:
        """Of the density at small Δ, and the ends of its 95 % interval."""
        low, high = self.law.interval
        return self.law.exponent - 1, low - 1, high - 1

    @property
    def small(self) -> float:
        """The largest Δ of the straight line."""
        return SMALL * float(np.median(self.values)) if len(self.values) else np.nan

    @cached_property
    def straight(self) -> tuple[float, float, float]:
        """Exponent of the density as a pure power law below :attr:`small`, and its 95 % interval.

        The most likely one of the values x up to c, k / Σ ln(c / x) - 1 (Hill 1975), with a normal
        interval; zeros, which are rounded, are left out.
        """
        x = self.values[(self.values > 0) & (self.values < self.small)]
        if len(x) < FEWEST:
            return np.nan, np.nan, np.nan
        whole = len(x) / float(np.log(self.small / x).sum())
        error = NORMAL * whole / len(x) ** 0.5
        return whole - 1, whole - 1 - error, whole - 1 + error

    @property
    def line(self) -> tuple[Array, Array]:
        """Ends of the straight line in a picture: Δ ``(2,)``, and its densities there."""
        inside = (self.values > 0) & (self.values < self.small)
        whole = self.straight[0] + 1
        ends = np.array([min(self.bins[0][0], self.small), self.small])
        top = np.count_nonzero(inside) / len(self.values) * whole / self.small
        return ends, top * (ends / self.small) ** (whole - 1)

    @cached_property
    def bins(self) -> tuple[Array, NDArray[np.int64]]:
        """Edges ``(k + 1,)`` on a logarithmic scale, and how many values lie in each bin."""
        usable = self.values[(self.values > 0) & np.isfinite(self.values)]
        if len(usable) < 2 * LEAST:
            return np.array([]), np.array([], dtype=np.int64)
        low = np.partition(usable, LEAST - 1)[LEAST - 1]
        edges = np.geomspace(low, usable.max() * (1 + 1e-12), BINS + 1)
        return edges, np.histogram(usable, edges)[0]

    @property
    def density(self) -> Array:
        """``(k,)``: of each bin, in shares for a unit of logits."""
        edges, counts = self.bins
        return counts / (len(self.values) * np.diff(edges)) if len(counts) else np.array([])


def tails_of(found: Sequence[Net], report: Reporter, parts: Sequence[str]) -> list[Tail]:
    """Return the tails of every net, part of its images, and rank of :data:`TAILS`."""
    tails = []
    for place, net in enumerate(found, start=1):
        for part in parts:
            kept = net.kept("differences", {"part": part}, _Differences(net, part))
            some = [_tail(net, part, rank, np.array(kept[str(rank)])) for rank in TAILS]
            told = "; ".join(f"Δ_1{tail.rank} {interval(tail.straight)}" for tail in some)
            report.say(f"[{place}/{len(found)}] {some[0].title}: {told}")
            tails += some
    return tails


def _tail(net: Net, part: str, rank: int, values: Array) -> Tail:
    return Tail(net.name, net.training, part, rank, values[~np.isnan(values)])


@dataclass(frozen=True)
class _Differences:
    net: Net
    part: str

    def __call__(self) -> dict[str, Any]:
        images, _ = first(self.net.images(self.part), None)
        found = logit_differences(self.net.model(), images)
        return {str(rank): column(found, rank).tolist() for rank in TAILS}


def column(differences: torch.Tensor, rank: int) -> torch.Tensor:
    """Return ``(N,)``: Δ_1j of differences ``(N, classes - 1)``; none of too few classes."""
    return differences[:, rank - 2] if rank - 2 < differences.shape[1] else differences[:0, 0]


def density_table(tails: Iterable[Tail]) -> pd.DataFrame:
    """Return one row a tail and bin: its density, and what its power law says."""
    rows = []
    for tail in tails:
        exponent, low, high = tail.exponent
        edges, counts = tail.bins
        own = {
            "net": tail.name,
            "training": tail.training,
            "part": tail.part,
            "rank": tail.rank,
            "images": len(tail.values),
            "straight": tail.straight[0],
            "straight_low": tail.straight[1],
            "straight_high": tail.straight[2],
            "straight_to": tail.small,
            "exponent": exponent,
            "exponent_low": low,
            "exponent_high": high,
            "fitted_to": tail.law.high,
            "events": tail.law.events,
            "p_value": tail.law.p_value,
        }
        rows += [
            {**own, "from": start, "to": end, "count": count, "density": density}
            for start, end, count, density in zip(
                edges[:-1], edges[1:], counts, tail.density, strict=True
            )
        ]
    return pd.DataFrame(rows)


def tail_lines(tails: Sequence[Tail]) -> list[str]:
    """Return one line a tail: its exponent beside the paper's, and how many values are small."""
    bent = [f"{tail.law.high:.3g}" if tail.law.events else "" for tail in tails]
    fits = [f"{tail.law.p_value:.2g}" if tail.law.events else "" for tail in tails]
    columns = {
        "logits": [tail.title for tail in tails],
        "Δ": [f"1{tail.rank}" for tail in tails],
        "straight": [interval(tail.straight) for tail in tails],
        "below Δ": [f"{tail.small:.3g}" for tail in tails],
        "bent": [interval(tail.exponent) for tail in tails],
        "up to Δ": bent,
        "p": fits,
        "the paper": [str(TAILS[tail.rank]) for tail in tails],
        "median": [f"{np.median(t.values):.3g}" if len(t.values) else "" for t in tails],
        **{f"Δ < {near:g}": [below(tail, near) for tail in tails] for near in NEAR},
        "of": [str(len(tail.values)) for tail in tails],
    }
    right = [name for name in columns if name not in ("logits", "straight", "bent")]
    return [
        *aligned(columns, right=right),
        f"straight: exponent of the density as a pure power law below {SMALL:g} of the median, as "
        "the paper fits it; bent: as Δ goes to 0, by a power law with a first correction up to the "
        "Δ beside it, p of a fit as bad. Both with 95 % intervals of chance alone, as if nothing "
        "else bent it.",
    ]


def interval(found: tuple[float, float, float]) -> str:
    """Return an exponent and its interval as text, with three decimals where it is narrow."""
    if np.isnan(found[0]):
        return "n/a"
    digits = 3 if found[2] - found[1] < 0.1 else 2
    value, low, high = (f"{round(v, digits) + 0.0:.{digits}f}" for v in found)
    return f"{value} [{low}, {high}]"


def below(tail: Tail, near: float) -> str:
    """Return the share of values below ``near`` as text."""
    return f"{100 * np.mean(tail.values < near):.2f} %" if len(tail.values) else ""


def draw_density(axes: Axes, tail: Tail, colour: Any, label: str) -> None:
    """Draw a density as dots, and its straight power law as a line.

    Args:
        axes: to draw on.
        tail: whose.
        colour: of dots and line.
        label: in the legend.
    """
    edges, counts = tail.bins
    if not len(counts):
        return
    middle, filled = np.sqrt(edges[:-1] * edges[1:]), counts > 0
    axes.plot(middle[filled], tail.density[filled], "o", color=colour, markersize=3, label=label)
    if not np.isnan(tail.straight[0]):
        axes.plot(*tail.line, color=colour, linewidth=1)
    log_scales(axes, "Δ_1j, logits", "density")
