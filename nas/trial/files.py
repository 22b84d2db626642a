"""What one trial leaves in the run directory: ``trials/<number>/``."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nas.files import read_kept, write_whole
from nas.trial.checkpoint_file import drop_checkpoints, epochs_in
from nas.trial.evaluation import Evaluation
from nas.trial.state import Epoch, Weights
from nas.trial.trial import Trial

WEIGHTS = "weights.safetensors"
LAST_WEIGHTS = "last.safetensors"
TRACEBACK = "traceback.txt"
HANGING = ".hanging.txt"  # where a trial hung that its time limit ended
OUTCOME = "outcome.json"
WHOLE = {"status", "reason", "scores"}  # keys without which an outcome is none


def trial_directory(run: Path, number: int) -> Path:
    """Return the directory of one trial."""
    return run / "trials" / str(number)


def save_trial(run: Path, number: int, trial: Trial, evaluation: Evaluation) -> None:
    """Write architecture, epochs, weights and the traceback of an error, each file whole.

    The outcome comes last: where it is, the others are. What the trial could have gone on from is
    deleted then, unless memory ran out, after which it may run again.
    """
    directory = trial_directory(run, number)
    directory.mkdir(parents=True, exist_ok=True)
    task = evaluation.task.to_dict() if evaluation.task else None
    description = {"architecture": trial.architecture.to_dict(), "task": task}
    text = json.dumps(description, indent=2) + "\n"
    write_whole(directory / "architecture.json", lambda p: p.write_text(text, encoding="utf-8"))
    write_whole(directory / "epochs.csv", lambda p: _write_epochs(p, evaluation.epochs))
    if evaluation.traceback:
        save_trace(run, number, evaluation.traceback)
    else:  # of an attempt before this one
        (directory / TRACEBACK).unlink(missing_ok=True)
    if evaluation.weights is not None:
        save_weights(directory / WEIGHTS, evaluation.weights)
    if evaluation.last_weights is not None:
        save_weights(directory / LAST_WEIGHTS, evaluation.last_weights)
    reports = [asdict(epoch) for epoch in evaluation.epochs]
    kept = {"key": trial.key, "outcome": evaluation.to_dict(), "reports": reports}
    outcome = json.dumps(kept) + "\n"
    write_whole(
        directory / OUTCOME, lambda p: p.write_text(outcome, encoding="utf-8"), durable=True
    )
    if evaluation.status != "oom":
        drop_checkpoints(directory)


def kept_epochs(run: Path, number: int) -> int:
    """Return how many epochs of a trial need not be trained again, over all repeats."""
    return epochs_in(trial_directory(run, number))


def save_trace(run: Path, number: int, text: str) -> None:
    """Write the traceback of a trial that failed."""
    path = trial_directory(run, number) / TRACEBACK
    write_whole(path, lambda p: p.write_text(text, encoding="utf-8", errors="backslashreplace"))


def take_trace(run: Path, number: int) -> str | None:
    """Return where a trial hung that its time limit ended, kept as its traceback; None if none."""
    path = trial_directory(run, number) / HANGING
    try:
        text = path.read_text(encoding="utf-8", errors="backslashreplace")
        path.unlink()
    except OSError:
        return None
    if not text.strip():
        return None  # it died of something else
    save_trace(run, number, text)
    return text


def saved_outcome(
    run: Path, number: int, trial: Trial
) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
    """Return what a worker wrote of this trial, ``(outcome, reports of epochs)``, if all of it.

    A worker writes it before it travels: a driver that dies before the ledger has it costs nothing.
    """
    kept = read_kept(trial_directory(run, number) / OUTCOME, trial.key) or {}
    outcome, reports = kept.get("outcome"), kept.get("reports")
    if not (isinstance(outcome, dict) and outcome.keys() >= WHOLE and isinstance(reports, list)):
        return None
    return outcome, reports


def save_weights(path: Path, weights: Weights) -> None:
    """Write a state dict as safetensors, whole or not at all."""
    from safetensors.torch import save_file

    contiguous = {name: w.contiguous() for name, w in weights.items()}
    write_whole(path, lambda partial: save_file(contiguous, partial), durable=True)


def drop_weights(run: Path, numbers: Collection[int]) -> None:
    """Delete the weights of these trials; their other files stay."""
    for number in numbers:
        for name in (WEIGHTS, LAST_WEIGHTS):
            (trial_directory(run, number) / name).unlink(missing_ok=True)


def _write_epochs(path: Path, epochs: tuple[Epoch, ...]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(Epoch.__dataclass_fields__))
        writer.writeheader()
        writer.writerows(asdict(epoch) for epoch in epochs)
