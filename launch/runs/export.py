"""The way out of a run: a trial's weights, description and model card, and its cell drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from launch.runs.run import FinishedTrial, Run
from launch.show.cells import draw_cell
from nas.data.places import located
from nas.export.export import export_trial
from nas.search.reuse import fetch_weights
from nas.search.shared import TRAINED_IN
from nas.trial.files import WEIGHTS, trial_directory
from search_spaces import space_of


def export_row(run: Run, row: FinishedTrial, out: Path) -> None:
    """Export a finished trial, with a drawing of its cell if it has one.

    Raises:
        InputError: weights that were not kept, or a directory that holds something else.
    """
    config = run.config
    trial = replace(row.trial, data=located(row.trial.data))
    if not has_weights(home_of(run, row), row):  # of a reused trial they may lie in its own run
        fetch_weights(run.path, [{"number": row.number, **row.result}])
    export_trial(
        home_of(run, row),
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


def home_of(run: Run, row: FinishedTrial) -> Path:
    """Return the run directory that has a trial's files: of several drivers each has its own."""
    there = row.result.get(TRAINED_IN)
    here = trial_directory(run.path, row.number)
    if there is None or (here / WEIGHTS).exists():
        return run.path
    # Without weights it may be what a failed trial left here, whose retry another driver ran.
    elsewhere = trial_directory(Path(there), row.number).exists()
    return run.path if here.exists() and not elsewhere else Path(there)


def has_weights(home: Path, row: FinishedTrial) -> bool:
    """Whether a trial's weights are in a run directory that can be seen from here."""
    return (trial_directory(home, row.number) / WEIGHTS).exists()
