"""What a controller has learned, in a file: a resume then need not teach it every batch again.

The file is a cache. It says from which trials it was learned, and is left unread where the ledger
says otherwise; nothing in it is unpickled.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nas.files import write_whole

Arrays = list[NDArray[np.float32]]
MOMENTS = ("exp_avg", "exp_avg_sq")  # Adam's of every parameter


@dataclass(frozen=True)
class Learned:
    """A policy after so many batches.

    Attributes:
        digest: of the settings, and of every batch in order.
        batches: how many.
        steps: of the optimiser.
        arrays: every parameter, then both moments of each.
        credits: number -> ``(D,)`` of the trials that had started and were not yet taught.
    """

    digest: str
    batches: int
    steps: float
    arrays: Arrays
    credits: dict[int, NDArray[np.float32]]


def state_of(optimizer: torch.optim.Optimizer) -> tuple[float, Arrays]:
    """Return steps and arrays of a stepped Adam and its parameters."""
    parameters = optimizer.param_groups[0]["params"]
    moments = [optimizer.state[p][name] for p in parameters for name in MOMENTS]
    arrays = [tensor.detach().numpy().copy() for tensor in (*parameters, *moments)]
    return float(optimizer.state[parameters[0]]["step"]), arrays


def set_state(optimizer: torch.optim.Optimizer, learned: Learned) -> None:
    """Give an Adam and its parameters the values that they had."""
    parameters = optimizer.param_groups[0]["params"]
    moments = iter(learned.arrays[len(parameters) :])
    with torch.no_grad():
        for parameter, values in zip(parameters, learned.arrays, strict=False):
            parameter.copy_(torch.from_numpy(values))
            state = {name: torch.from_numpy(next(moments)) for name in MOMENTS}
            optimizer.state[parameter] = {"step": torch.tensor(learned.steps), **state}


def save(path: Path, learned: Learned) -> None:
    """Write the file, whole or not at all."""
    about = {"digest": learned.digest, "batches": learned.batches, "steps": learned.steps}
    named = {f"array{i}": array for i, array in enumerate(learned.arrays)}
    named |= {f"credit{number}": credit for number, credit in learned.credits.items()}

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            np.savez(file, about=np.array(json.dumps(about)), **named)  # type: ignore[arg-type]

    write_whole(path, write)


def load(path: Path) -> Learned | None:
    """Return what was saved; None where there is no file, or a broken one."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            names = [name for name in file.files if name.startswith("array")]
            arrays = [file[f"array{i}"] for i in range(len(names))]
            credits = {
                int(name.removeprefix("credit")): file[name]
                for name in file.files
                if name.startswith("credit")
            }
            return Learned(**about, arrays=arrays, credits=credits)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None
