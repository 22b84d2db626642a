"""The way out of a run: a trial's weights, description and model card, and its cell drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from launch.runs.run import FinishedTrial, Run
from launch.show.cells import draw_cell
from nas.data.places import located
from nas.export.export import export_trial
from search_spaces import space_of


def export_row(run: Run, row: FinishedTrial, out: Path) -> None:
    """Export a finished trial, with a drawing of its cell if it has one.

    Raises:
        InputError: weights that were not kept, or a directory that holds something else.
    """
    config = run.config
    trial = replace(row.trial, data=located(row.trial.data))
    export_trial(
        run.path,
        row.number,
        trial,
        row.result,
        out,
        metrics=config.resolved()["metrics"],
        data_checksum=run.checksums.get(trial.data.name),
        modules=config.modules,
    )
    if space_of(row.trial.architecture).cell(row.trial.architecture) is not None:
        draw_cell(row.trial.architecture, out / "cell.svg")
