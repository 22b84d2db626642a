"""The file of a checkpoint: whole, of this trial on this kind of machine, or none at all.

A line with the SHA-256 of all that follows, a line of JSON, the tensors as safetensors. It is
written whole and renamed, so that a kill between its bytes leaves the one before; what a disk or a
copy damages is not read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from nas.errors import first_line
from nas.trial.packed import Tensors, pack, unpack
from nas.trial.scoring import metric_key
from nas.trial.state import Epoch, TrainingState
from nas.trial.trial import Trial

VERSION = 1  # of the file and of the arithmetic of training: another one's are not read
NAME = ".checkpoint-"  # and the repeat's number


class Unfit(Exception):
    """A file that cannot be gone on from."""


@dataclass(frozen=True)
class Kept:
    """What a checkpoint holds of one repeat.

    Attributes:
        epochs: reports so far.
        ended: the fields of the ``Evaluation`` of a repeat that has ended; None of one that has
            not, of which alone the others tell.
        state: of its ``TrainingState``; the model's part is ``state["model"]``.
        drawn: states of the global generators.
        scores: of metrics that were computed before or after the first epoch.
        seconds, score_seconds: wall time so far, and that of those metrics.
        peak: bytes on the GPU so far; None on a CPU.
    """

    epochs: tuple[Epoch, ...]
    ended: dict[str, Any] | None = None
    state: Mapping[str, Any] | None = None
    drawn: Mapping[str, Any] | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    score_seconds: float = 0.0
    peak: int | None = None


MACHINE = ("torch", "device", "device_name", "fast_bf16", "threads")


def key_of(trial: Trial, environment: Mapping[str, Any], micro_batch: int | None) -> dict[str, Any]:
    """Return what decides the last digits of a training, as JSON types."""
    machine = {name: environment[name] for name in MACHINE}
    return {
        "version": VERSION,
        "trial": trial.key,
        "repeat": trial.repeat,
        "seed": trial.seed,
        "metrics": [[m.stage, m.prefix, metric_key(m)] for m in trial.metrics],
        "state": [f.name for f in fields(TrainingState)],
        **machine,
        "micro_batch": micro_batch,
    }


def to_parts(key: Mapping[str, Any], kept: Kept) -> tuple[bytes, ...]:
    """Return the content of a file, in order: together they would take as much memory again.

    Raises:
        TypeError: something is in it that :func:`nas.trial.packed.pack` or safetensors does not
            take.
    """
    tensors: Tensors = {}
    packed = {f.name: pack(getattr(kept, f.name), tensors) for f in fields(kept)}
    document = {"key": key, "epochs": len(kept.epochs), "kept": packed}
    try:
        text, content = json.dumps(document).encode() + b"\n", save(tensors)
    except KeyError as error:
        raise TypeError(f"expected types that safetensors holds, got {error}") from error
    return _digest(text, content), text, content


def write_parts(path: Path, parts: tuple[bytes, ...]) -> None:
    """Write what :func:`to_parts` gave."""
    with path.open("wb") as file:
        for part in parts:
            file.write(part)


def read_kept(path: Path, key: Mapping[str, Any], device: torch.device) -> Kept:
    """Return what a file holds.

    Args:
        path: of the file.
        key: that it must have.
        device: where tensors go that lay on no CPU.

    Raises:
        Unfit: it is damaged, or of another key.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        digest, text, content = file.readline(), file.readline(), file.read()
    if _digest(text, content) != digest:
        raise Unfit("the file is damaged")
    try:
        document = json.loads(text)
        found = document["key"]
        if other := [name for name in key if found.get(name) != key[name]]:
            name = other[0]
            raise Unfit(f"expected {name} {key[name]!r}, got {found.get(name)!r}")
        held = load(content)
        return Kept(**{n: unpack(v, held, device) for n, v in document["kept"].items()})
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise Unfit(f"the file is none of this version: {first_line(error)}") from error


def _digest(*parts: bytes) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest().encode() + b"\n"


def drop_checkpoints(directory: Path) -> None:
    """Delete the checkpoints of a trial, also one that was being written."""
    for path in _named(directory, NAME, f".{NAME}"):  # see ``write_whole``
        path.unlink(missing_ok=True)


def checkpoints_in(directory: Path) -> list[Path]:
    """Return the files of checkpoints in a trial's directory."""
    return _named(directory, NAME)


def epochs_in(directory: Path) -> int:
    """Return how many epochs need not be trained again, over all repeats, as the files say."""
    total = 0
    for path in checkpoints_in(directory):
        try:
            with path.open("rb") as file:
                file.readline()
                total += int(json.loads(file.readline())["epochs"])
        except (OSError, ValueError, KeyError, TypeError):  # it does not count
            continue
    return total


def _named(directory: Path, *beginnings: str) -> list[Path]:
    try:
        return [Path(e.path) for e in os.scandir(directory) if e.name.startswith(beginnings)]
    except (FileNotFoundError, NotADirectoryError):
        return []
