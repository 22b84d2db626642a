"""Table 1 of Cubuk et al. 2017: robust cells, searched and retrained, attacked from two sides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from launch.runs.retrain import saved_row
from launch.runs.retrained import ATTACKS, Retrained, table_lines
from launch.runs.run import Run
from launch.show.reporter import Reporter
from launch.show.style import colours, finished, panels
from launch.show.view import View
from nas.errors import InputError

PAPER_EPSILON = 8 / 255
PAPER_TEST = {
    "data": "cifar10",
    "classes": None,
    "epsilon": PAPER_EPSILON,
    "steps": 7,
    "step_size": 2 / 255,
}
"""On what the paper's models were attacked, and by what PGD."""

PAPER = (
    Retrained(
        "Madry et al. 2017",
        None,
        0.873,
        {"fgsm": 0.561, "step_ll": None, "pgd": 0.500},
        {"fgsm": 0.670, "step_ll": None, "pgd": 0.642},
        test=PAPER_TEST,
    ),
    Retrained(
        "Cubuk et al. 2017, best",
        3.5e6,
        0.932,
        {"fgsm": 0.636, "step_ll": 0.779, "pgd": 0.501},
        {"fgsm": 0.781, "step_ll": 0.849, "pgd": 0.750},
        test=PAPER_TEST,
    ),
)
"""CIFAR-10, epsilon 8/255: what the paper prints."""


def table_1(runs: Sequence[Run], report: Reporter) -> View:
    """Return the retrained winners of the searches beside the paper's rows.

    Raises:
        InputError: a winner that has not been retrained.
    """
    rows = []
    for run in runs:
        if (row := saved_row(run)) is None:
            raise InputError(
                f"expected the winner of {run.path} retrained, got no {run.path}/retrain"
            )
        rows.append(row)
    lines = table_lines(rows, PAPER)
    comparable = all(row.test == PAPER_TEST for row in rows)
    lines.append(
        "The papers' rows are of CIFAR-10, epsilon 8/255, PGD of 7 steps of 2/255"
        + ("." if comparable else ": not to be compared.")
    )
    table = pd.DataFrame([_flat(row) for row in (*PAPER, *rows)])
    return View(table, lines, _picture(table))


def _flat(row: Retrained) -> dict[str, object]:
    sides = {"white": row.white, "black": row.black}
    accuracies = {f"{side}_{a}": of[a] for side, of in sides.items() for a in ATTACKS}
    return {"model": row.model, "parameters": row.parameters, "clean": row.clean, **accuracies}


def _picture(table: pd.DataFrame) -> Figure:
    """Return every model's accuracies as a line over the attacks."""
    figure, (axes,) = panels(1, width=8)
    names = [str(name) for name in table.columns[2:]]
    values = 100 * table[names].astype(float)
    for colour, model, row in zip(
        colours(len(table)), table["model"], values.to_numpy(), strict=True
    ):
        axes.plot(np.arange(len(names)), row, "o-", color=colour, label=model)
    axes.set_xticks(np.arange(len(names)), [name.replace("_", " ", 1) for name in names])
    axes.set_ylabel("test accuracy, %")
    return finished(figure, axes)
