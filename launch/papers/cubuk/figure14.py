"""Figure 14 of Cubuk et al. 2017: the best cells of the searches, one below the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from launch.config.sections import Retrain
from launch.runs.retrain import retrain_config
from launch.runs.run import Run
from launch.runs.subject import subject
from launch.show.cells import figure_of_cells
from launch.show.columns import aligned
from launch.show.reporter import Reporter
from launch.show.view import View
from metrics.cost import parameters
from search_spaces import space_of
from search_spaces.architecture import Choice
from search_spaces.graphs import Cell

PAPER_PARAMETERS = (4.9e6, 2.3e6, 3.5e6)
"""Of the paper's baseline and of the winners of its Experiments 1 and 2."""


@dataclass(frozen=True)
class Best:
    """The cell that a search found best.

    Attributes:
        name: of the search.
        trial: its number.
        score: the value of the search's objective.
        objective: its name.
        cell: to draw.
        choices: the decisions.
        child, enlarged: parameters of the net that was searched, and of the one to retrain.
        layers: convolutions and linear layers on the longest path of the latter.
        blocks: in the cell.
        length: blocks on the cell's longest path.
        width: blocks that no other reads: the cell's output is made of them.
        concat: blocks that concatenate.
    """

    name: str
    trial: int
    score: float
    objective: str
    cell: Cell
    choices: Mapping[str, Choice]
    child: int
    enlarged: int
    layers: int
    blocks: int
    length: int
    width: int
    concat: int


def figure_14(runs: Sequence[Run], report: Reporter) -> View:
    """Return the cells of the winners, the baseline's first.

    The table has one row a search: what :class:`Best` has, then the decisions.
    """
    found = [best_of(run) for run in runs]
    table = pd.DataFrame(
        [
            {
                "search": best.name,
                "trial": best.trial,
                "objective": best.objective,
                "score": best.score,
                "parameters": best.enlarged,
                "searched_parameters": best.child,
                "layers": best.layers,
                "longest_path": best.length,
                "width": best.width,
                "concat": best.concat,
                **best.choices,
            }
            for best in found
        ]
    )
    figure = figure_of_cells({f"{best.name}, trial {best.trial}": best.cell for best in found})
    return View(table, _lines(found), figure)


def best_of(run: Run) -> Best:
    """Return the cell of a search's winner.

    Raises:
        InputError: its weights were not kept.
    """
    winner = run.best()
    architecture = winner.trial.architecture
    choices = dict(architecture.choices)
    space, child = space_of(architecture), subject(f"{run.path}:{winner.number}")
    asked = run.config.retrain or Retrain()
    large = retrain_config(run.config, winner, asked).built_space()
    grown = large.architecture(choices)
    assert child.task is not None
    cell, features = space.cell(architecture), space.features(choices)
    assert cell is not None
    return Best(
        run.config.name,
        winner.number,
        float(winner.result["scores"][run.objective]),
        run.objective,
        cell,
        choices,
        parameters(child.model),
        parameters(large.build(grown, child.task, seed=0)),
        large.hidden_states(grown)[""],
        sum(name.endswith("_combine") for name in choices),
        int(features["longest_path"]),
        int(features["loose_ends"]),
        int(features["concat"]),
    )


def _lines(found: Sequence[Best]) -> list[str]:
    columns = {
        "": [best.name for best in found],
        "trial": [str(best.trial) for best in found],
        "score": [f"{best.objective} {best.score:.3f}" for best in found],
        "parameters": [f"{best.enlarged / 1e6:.3g} M" for best in found],
        "the paper's": [f"{PAPER_PARAMETERS[i] / 1e6:.2g} M" for i in range(len(found))],
        "layers": [str(best.layers) for best in found],
        "longest path": [f"{best.length} of {best.blocks}" for best in found],
        "width": [f"{best.width} of {best.blocks}" for best in found],
        "concat": [f"{best.concat} of {best.blocks}" for best in found],
    }
    baseline, *others = found
    return [
        *aligned(columns, right=[name for name in columns if name]),
        "Parameters and layers (convolutions and linear, longest path) are of the net to retrain; "
        "longest path in blocks, width in blocks whose output is concatenated to the cell's.",
        *(_against(best, baseline) for best in others),
        "The paper's best architecture is longer and narrower than its baseline. These are "
        f"{len(found)} winners, of one search each.",
    ]


def _against(best: Best, baseline: Best) -> str:
    """Say how a cell compares with the baseline's."""
    long = _word(best.length - baseline.length, "longer", "shorter", "as long")
    wide = _word(baseline.width - best.width, "narrower", "wider", "as wide")
    share = best.enlarged / baseline.enlarged
    return f"{best.name} against {baseline.name}: {long}, {wide}; {share:.2f} times the parameters"


def _word(difference: int, more: str, less: str, same: str) -> str:
    return more if difference > 0 else less if difference < 0 else same
