"""Figure 4 of Cubuk et al. 2017: densities of logit differences of nets and of random logits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes

from launch.papers.cubuk.densities import (
    Array,
    Tail,
    column,
    density_table,
    draw_density,
    interval,
    tail_lines,
    tails_of,
)
from launch.papers.cubuk.nets import SEED, nets
from launch.papers.cubuk.printed import RANDOM_DRAWS, TAILS
from launch.runs.run import Run
from launch.show.columns import aligned
from launch.show.reporter import Reporter
from launch.show.style import colours, finished, panels
from launch.show.view import View
from metrics.universality import RandomLogits

RANDOM = "random logits"


def figure_4(runs: Sequence[Run], report: Reporter, draws: int = RANDOM_DRAWS) -> View:
    """Return the densities of the run's nets, and of independent uniform logits of 10 classes.

    Args:
        runs: one search.
        report: is told of each net.
        draws: sets of random logits.
    """
    found = nets(runs[0])
    trained = tails_of(found, report, ("test", "train"))
    logits = RandomLogits()
    report.say(f"drawing {draws} times {logits.classes} random logits")
    random = random_tails(logits, draws)
    table = density_table([*trained, *random])
    table["exact_density"] = np.nan
    for tail in random:
        rows = (table["net"] == RANDOM) & (table["rank"] == tail.rank)
        table.loc[rows, "exact_density"] = exact_density(logits, tail.rank, tail.bins[0])
    lines = [
        *tail_lines(trained),
        "",
        *tail_lines(random),
        "",
        *law_lines(logits, random),
        f"The paper: NASNet-A on ImageNet, and {RANDOM_DRAWS} sets of 10 uniform logits; in both "
        "the density of Δ_1j goes as Δ^(j-2). Here the nets are those of Figure 2, on "
        f"{runs[0].config.data.name}.",
    ]
    figure, axes = panels(len(found) + 1, width=4.5 * (len(found) + 1))
    for panel, net in zip(axes, found, strict=False):
        of_net = [t for t in trained if (t.name, t.training) == (net.name, net.training)]
        draw_ranks(panel, [tail for tail in of_net if tail.part == "test"])
        panel.set_title(f"{net.title}, test images", fontsize=10)
    draw_ranks(axes[-1], random)
    _draw_exact(axes[-1], logits, random)
    axes[-1].set_title(f"{RANDOM}, uniform, 10 classes", fontsize=10)
    return View(table, lines, finished(figure, *axes))


def random_tails(logits: RandomLogits, draws: int) -> list[Tail]:
    """Return the tails of so many sets of independent logits."""
    sample = logits.sample(draws, torch.Generator().manual_seed(SEED))
    return [
        Tail(RANDOM, logits.law, "", rank, column(sample, rank).numpy().copy()) for rank in TAILS
    ]


def exact_density(logits: RandomLogits, rank: int, edges: Array) -> Array:
    """Return the mean of the exact density in each bin."""
    whole: Array = logits.cumulative(rank, torch.from_numpy(edges)).numpy()
    return np.diff(whole) / np.diff(edges)


def law_lines(logits: RandomLogits, tails: Sequence[Tail]) -> list[str]:
    """Return one line a rank: the sample against the exact law."""
    from scipy import stats  # here: a second, which no other reproduction needs to wait for

    tests = [
        stats.ks_1samp(tail.values, _Cumulative(logits, tail.rank), mode="asymp") for tail in tails
    ]
    slopes = [logits.slope(tail.rank) for tail in tails]
    ours = [(tail.exponent[0] + 1) * tail.law.amplitude for tail in tails]
    columns = {
        "exact law": [f"Δ_1{tail.rank}" for tail in tails],
        "density at small Δ": [
            f"{c:.4g} Δ^{tail.rank - 2}" for c, tail in zip(slopes, tails, strict=True)
        ],
        "fitted": [
            f"{c:.4g} Δ^{tail.exponent[0]:.3f}" for c, tail in zip(ours, tails, strict=True)
        ],
        "KS distance": [f"{test.statistic:.2g}" for test in tests],
        "p": [f"{test.pvalue:.2g}" for test in tests],
    }
    return [
        *aligned(columns, right=("KS distance", "p")),
        "KS: Kolmogorov-Smirnov, of the whole sample against the exact law (the paper's equations "
        "17 to 22).",
    ]


class _Cumulative:
    def __init__(self, logits: RandomLogits, rank: int) -> None:
        self.logits, self.rank = logits, rank

    def __call__(self, values: Array) -> Array:
        found: Array = self.logits.cumulative(self.rank, torch.from_numpy(values)).numpy()
        return found


def draw_ranks(axes: Axes, tails: Sequence[Tail]) -> None:
    """Draw the densities of one net, one colour a rank."""
    for colour, tail in zip(colours(len(tails)), tails, strict=True):
        value = interval(tail.straight).partition(" ")[0]
        draw_density(axes, tail, colour, f"Δ_1{tail.rank}, exponent {value}")


def _draw_exact(axes: Axes, logits: RandomLogits, tails: Sequence[Tail]) -> None:
    for tail in tails:
        at = np.geomspace(tail.bins[0][0], tail.bins[0][-1], 200)
        density = logits.density(tail.rank, torch.from_numpy(at)).numpy()
        label = "exact law" if tail is tails[-1] else None
        axes.plot(at, density, "--", color="black", linewidth=0.8, label=label)
