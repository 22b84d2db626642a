"""Where the printed theorems of Peck et al. 2017 fail: real perturbations below their bounds.

Theorem 4.2 takes a convolution to stretch a perturbation by ||W||_F at most, though a pixel lies in
several windows; theorem 4.1 takes each second derivative's bound for the Hessian's. Both are
computed here against the truth, beside the two modes that hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from launch.papers.peck.examples import (
    Example,
    Stretch,
    Trained,
    by_slope,
    known_examples,
    stretches,
    trained_net,
)
from launch.runs.run import Run
from launch.show.columns import aligned
from launch.show.reporter import Reporter
from launch.show.style import colours, finished, log_scales, panels
from launch.show.view import View
from metrics.bounds.gains.form import MODES

SEEDS = (0, 1, 2, 3)
TICKS = (0.1, 0.2, 0.5, 1, 2, 5)


def counterexamples(runs: Sequence[Run], report: Reporter) -> View:
    """Return every example's smallest perturbation beside its bounds; it looks at no run.

    The table has one row an image: ``smallest``, its L2 length, ``upper`` for how it is known
    (``exact``, or ``attack``: an upper bound), and for each mode the lower bound, whether it is
    certified, and whether it is ``refuted``, by a shorter perturbation.
    """
    known = known_examples()
    trained = [trained_net(seed) for seed in SEEDS]
    of_trained = [example for net in trained for example in net.examples]
    every = known + of_trained
    lines = [
        "Smallest perturbation that changes the answer, and the lower bounds on it (L2):",
        *_known_lines(known),
        f"Of the sigmoid unit the slope alone, kappa / (sup|g'| ||V||), gives {by_slope():.4f}.",
        "",
        "Trained nets (convolution 5 x 5, ReLU, dense; bright against dark): on how many images an",
        "attack (an upper bound) is below a lower bound, and the least ratio of the two:",
        *_trained_lines(trained),
        "",
        "How much a convolution stretches a perturbation, at most:",
        *_stretch_lines(stretches()),
        "",
        *_verdict(every),
    ]
    return View(
        pd.DataFrame([_row(example) for example in every]), lines, _picture(known, of_trained)
    )


def _row(example: Example) -> dict[str, object]:
    row: dict[str, object] = {
        "example": example.name,
        "smallest": example.smallest,
        "known": "exact" if example.exact else "attack",
    }
    for mode in MODES:
        row[mode] = example.bounds[mode]
        row[f"{mode}_certified"] = example.certified[mode]
        row[f"{mode}_refuted"] = example.refuted(mode)
    return row


def _known_lines(found: Sequence[Example]) -> list[str]:
    columns = {
        "": [example.name for example in found],
        "smallest": [f"{example.smallest:.6f}" for example in found],
        **{
            mode: [
                f"{example.bounds[mode]:.4f}{' WRONG' if example.refuted(mode) else ''}"
                for example in found
            ]
            for mode in MODES
        },
    }
    return aligned(columns, right=[name for name in columns if name])


def _trained_lines(found: Sequence[Trained]) -> list[str]:
    columns = {
        "": [net.name for net in found],
        "accuracy": [f"{net.accuracy:.3f}" for net in found],
        "images": [str(len(net.examples)) for net in found],
        **{
            f"below {mode}": [str(sum(e.refuted(mode) for e in net.examples)) for net in found]
            for mode in MODES
        },
        **{f"attack/{mode}": [f"{_least(net.examples, mode):.2f}" for net in found]
           for mode in MODES},
    }  # fmt: skip
    return aligned(columns, right=[name for name in columns if name])


def _least(examples: Sequence[Example], mode: str) -> float:
    ratios = [e.smallest / e.bounds[mode] for e in examples if e.bounds[mode] > 0]
    return min(ratios, default=math.nan)


def _stretch_lines(found: Sequence[Stretch]) -> list[str]:
    columns = {
        "": [stretch.name for stretch in found],
        "in truth": [f"{stretch.norm:.3f}" for stretch in found],
        **{
            mode: [
                f"{s.gains[mode]:.3f}{' WRONG' if s.gains[mode] < s.norm * (1 - 1e-9) else ''}"
                for s in found
            ]
            for mode in MODES
        },
    }
    return aligned(columns, right=[name for name in columns if name])


def _verdict(found: Sequence[Example]) -> list[str]:
    """Count what is refuted; a refuted bound that calls itself certified is an error here."""
    lines = []
    for mode in MODES:
        refuted = [example for example in found if example.refuted(mode)]
        wrong = sum(example.certified[mode] for example in refuted)
        told = f"; {wrong} of them called themselves certified: AN ERROR" if wrong else ""
        lines.append(f"Bounds refuted, mode {mode}: {len(refuted)} of {len(found)}{told}.")
    return lines


def _picture(known: Sequence[Example], of_trained: Sequence[Example]) -> Figure:
    figure, (left, right) = panels(2, width=13)
    _ratios(left, known)
    _scatter(right, of_trained)
    return finished(figure, left, right)


def _ratios(axes: Axes, known: Sequence[Example]) -> None:
    """Bounds as multiples of the smallest perturbation: a true one is no larger than 1."""
    places = np.arange(len(known))
    for colour, size, mode in zip(colours(len(MODES)), (9, 9, 4), MODES, strict=True):
        ratios = [example.bounds[mode] / example.smallest for example in known]
        label = f"lower bound, {mode}"
        axes.plot(ratios, places, "o", color=colour, markersize=size, label=label)
    axes.axvline(1, color="black", linewidth=1, label="smallest perturbation")
    axes.set_yticks(places, [e.name.replace(" (", "\n(") for e in known], fontsize=8)
    axes.set(xscale="log", ylim=(-0.5, len(known) - 0.5))
    axes.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
    axes.minorticks_off()
    axes.set_xlabel("lower bound / smallest perturbation: above 1 it is wrong")


def _scatter(axes: Axes, examples: Sequence[Example]) -> None:
    """Attack against bound, one dot an image: a bound above the diagonal is wrong."""
    found = [e for e in examples if math.isfinite(e.smallest)]
    sizes = np.array([e.smallest for e in found])
    for colour, mode in zip(colours(len(MODES)), MODES, strict=True):
        wrong = sum(e.refuted(mode) for e in found)
        axes.plot(sizes, [e.bounds[mode] for e in found], ".", color=colour,
                  label=f"lower bound, {mode}: {wrong} of {len(found)} wrong")  # fmt: skip
    if len(sizes):
        ends = [sizes.min(), sizes.max()]
        axes.plot(ends, ends, color="black", linewidth=1, label="bound = attack")
    log_scales(axes, "smallest attack found (upper bound), L2", "lower bound, L2")
    axes.set_title("trained nets, bright against dark", fontsize=10)
