"""The epochs that a trial reported, read from its directory; loads no torch."""

from __future__ import annotations

import csv
import math
from pathlib import Path

NAME = "epochs.csv"
JUDGES = ("robust_accuracy", "clean_accuracy", "train_loss")
"""What an epoch is told by where there is room for one number: the first that is known."""


def read_epochs(directory: Path) -> dict[int, dict[str, float]]:
    """Return epoch -> column -> number, NaN where there is none; empty without a file.

    What is no number, or is cut short, is left out: a view of a run must not fail by it.

    Args:
        directory: of the trial.
    """
    found: dict[int, dict[str, float]] = {}
    try:
        text = (directory / NAME).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return found
    for row in csv.DictReader(text.splitlines()):
        numbers = {name: _number(value) for name, value in row.items() if isinstance(name, str)}
        epoch = numbers.pop("epoch", None)
        if epoch is not None and math.isfinite(epoch):
            found[int(epoch)] = {n: v for n, v in numbers.items() if v is not None}
    return found


def judged_by(epochs: dict[int, dict[str, float]]) -> tuple[str, dict[int, float]]:
    """Return one number an epoch, and what it is: robust accuracy where images judged it.

    Returns:
        The column (empty without epochs), and epoch -> number, those that are NaN left out.
    """
    for name in JUDGES:
        values = {epoch: row.get(name, math.nan) for epoch, row in epochs.items()}
        if known := {epoch: v for epoch, v in values.items() if not math.isnan(v)}:
            return name, known
    return "", {}


def _number(text: object) -> float | None:
    try:
        return float(text) if isinstance(text, str) else None
    except ValueError:
        return None
