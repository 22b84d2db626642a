"""What one trial leaves in the run directory: ``trials/<number>/``."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

from nas.files import write_whole
from nas.trial.evaluation import Evaluation
from nas.trial.training import Epoch, Weights
from nas.trial.trial import Trial

WEIGHTS = "weights.safetensors"
LAST_WEIGHTS = "last.safetensors"


def trial_directory(run: Path, number: int) -> Path:
    """Return the directory of one trial."""
    return run / "trials" / str(number)


def save_trial(run: Path, number: int, trial: Trial, evaluation: Evaluation) -> None:
    """Write architecture, epochs, weights and the traceback of an error, each file whole."""
    directory = trial_directory(run, number)
    directory.mkdir(parents=True, exist_ok=True)
    task = evaluation.task.to_dict() if evaluation.task else None
    description = {"architecture": trial.architecture.to_dict(), "task": task}
    text = json.dumps(description, indent=2) + "\n"
    write_whole(directory / "architecture.json", lambda p: p.write_text(text))
    write_whole(directory / "epochs.csv", lambda p: _write_epochs(p, evaluation.epochs))
    if evaluation.traceback:
        write_whole(directory / "traceback.txt", lambda p: p.write_text(evaluation.traceback))
    if evaluation.weights is not None:
        save_weights(directory / WEIGHTS, evaluation.weights)
    if evaluation.last_weights is not None:
        save_weights(directory / LAST_WEIGHTS, evaluation.last_weights)


def save_weights(path: Path, weights: Weights) -> None:
    """Write a state dict as safetensors, whole or not at all."""
    from safetensors.torch import save_file

    contiguous = {name: w.contiguous() for name, w in weights.items()}
    write_whole(path, lambda partial: save_file(contiguous, partial))


def drop_weights(run: Path, numbers: Collection[int]) -> None:
    """Delete the weights of these trials; their other files stay."""
    for number in numbers:
        for name in (WEIGHTS, LAST_WEIGHTS):
            (trial_directory(run, number) / name).unlink(missing_ok=True)


def _write_epochs(path: Path, epochs: tuple[Epoch, ...]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(Epoch.__dataclass_fields__))
        writer.writeheader()
        writer.writerows(asdict(epoch) for epoch in epochs)
