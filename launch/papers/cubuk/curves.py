"""Adversarial errors over ε: a table, lines to print, and a picture with their power laws."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from launch.papers.cubuk.nets import Measured, exponent
from launch.show.columns import aligned
from launch.show.style import colours, log_scales


def error_table(found: Iterable[Measured]) -> pd.DataFrame:
    """Return one row a net, attack and epsilon, with what the net's power law says."""
    return pd.DataFrame([row for each in found for row in _rows(each)])


def _rows(found: Measured) -> Iterable[dict[str, Any]]:
    law = found.law
    own = {
        "search": found.net.run.config.name,
        "number": found.net.row.number,
        "net": found.net.name,
        "training": found.net.training,
        "part": found.part,
        "images": found.total,
        "attack": found.attack,
        "clean_accuracy": found.clean,
        "exponent": law.exponent,
        "exponent_low": law.interval[0],
        "exponent_high": law.interval[1],
        "line": law.line,
        "amplitude": law.amplitude,
        "fitted_to": law.high,
        "events": law.events,
        "p_value": law.p_value,
    }
    for epsilon, accuracy, error in zip(
        found.epsilons, found.accuracies, found.errors, strict=True
    ):
        yield {**own, "epsilon": epsilon, "accuracy": accuracy, "adversarial_error": error}


def law_lines(found: Sequence[Measured], paper: Mapping[str, str]) -> list[str]:
    """Return one line a net and attack: its exponent beside the paper's.

    Args:
        found: what was measured.
        paper: attack -> what the paper has for it.
    """
    columns = {
        "net": [f"{c.net.title}" + (", training images" if c.part == "train" else "")
                for c in found],
        "clean": [f"{100 * c.clean:.2f} %" for c in found],
        "attack": [c.attack for c in found],
        "B": [exponent(c.law) for c in found],
        "the paper": [paper.get(c.attack, "") for c in found],
        "line": ["" if not c.law.events else f"{c.law.line:.2f}" for c in found],
        "up to ε": ["" if not c.law.events else f"{c.law.high:.3g}" for c in found],
        "images": [str(c.law.events) for c in found],
        "p": ["" if not c.law.events else f"{c.law.p_value:.2g}" for c in found],
    }  # fmt: skip
    return [
        *aligned(columns, right=("clean", "line", "up to ε", "images", "p")),
        "B: exponent of the adversarial error as ε goes to 0, with its 95 % interval; line: slope "
        "of a straight line through all small errors, as the paper fits; images: how many break in "
        "the fitted range; p: of a fit as bad.",
    ]


def draw_errors(axes: Axes, found: Sequence[Measured], labels: Sequence[str], unit: str) -> None:
    """Draw errors on logarithmic axes as dots, and their power laws as lines.

    Args:
        axes: to draw on.
        found: curves.
        labels: of each.
        unit: of epsilon, named on the axis.
    """
    for colour, curve, label in zip(colours(len(found)), found, labels, strict=True):
        epsilons, errors = np.array(curve.epsilons), np.array(curve.errors)
        shown = errors > 0
        axes.plot(epsilons[shown], errors[shown], "o", color=colour, markersize=3, label=label)
        if curve.law.events:
            some = np.geomspace(epsilons[shown][0], curve.law.high, 20)
            axes.plot(some, curve.law(some), color=colour, linewidth=1)
    log_scales(axes, f"ε, {unit}", "adversarial error")
