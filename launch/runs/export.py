"""The way out of a run: a trial's weights, description, formats and model card, its cell drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import Tensor

from launch.runs.run import FinishedTrial, Run
from launch.show.cells import draw_cell
from nas.data.arrays import prepare
from nas.data.datasets import load_as_before
from nas.data.places import located
from nas.export.agreement import IMAGES
from nas.export.export import Exported, Wanted, export_trial
from nas.search.reuse import fetch_weights
from nas.search.shared import TRAINED_IN
from nas.trial.files import WEIGHTS, trial_directory
from nas.trial.trial import Trial
from search_spaces import space_of


def export_row(
    run: Run,
    row: FinishedTrial,
    out: Path,
    *,
    formats: Sequence[str] = (),
    licence: str | None = None,
    robustbench: bool = False,
) -> Exported:
    """Export a finished trial, with a drawing of its cell if it has one.

    Args:
        run: it is of.
        row: the trial.
        out: the directory.
        formats: beside the weights; none by default, so that no search waits for them at its end.
        licence: of the weights.
        robustbench: write the wrapper for RobustBench too.

    Raises:
        InputError: weights that were not kept, or a directory that holds something else.
    """
    config = run.config
    trial = replace(row.trial, data=located(row.trial.data))
    if not has_weights(home_of(run, row), row):  # of a reused trial they may lie in its own run
        fetch_weights(run.path, [{"number": row.number, **row.result}])
    has_cell = space_of(row.trial.architecture).cell(row.trial.architecture) is not None
    return export_trial(
        home_of(run, row),
        row.number,
        trial,
        row.result,
        out,
        metrics=config.resolved()["metrics"],
        data_checksum=run.checksums.get(trial.data.name),
        modules=config.modules,
        wanted=Wanted(
            formats=tuple(formats),
            images=partial(_validation, run, row.trial),
            draw=partial(draw_cell, row.trial.architecture) if has_cell else None,
            licence=licence,
            robustbench=robustbench,
        ),
    )


def _validation(run: Run, trial: Trial) -> tuple[Tensor, Tensor]:
    """Return the first validation images of a trial, and their labels.

    Raises:
        InputError: the data are not here, or have changed.
    """
    split = prepare(load_as_before(trial.data, run.checksums, test=False), trial.data).validation
    return split.images(slice(IMAGES)), split.labels[:IMAGES]


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
