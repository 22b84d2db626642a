"""A process that trains a trial with another one, whose member it is: ``nas.trial.team`` starts it.

It is told the trial and the images, trains on its rows of every batch, and judges and writes
nothing. What it fails of it writes beside the meeting place, for the first process to read.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from pathlib import Path

import torch

from metrics.engine.device_faults import device_fault
from metrics.engine.memory import out_of_memory
from nas.errors import Diverged, one_line, writable
from nas.trial.group import Group
from nas.trial.team import join, share_trial
from nas.trial.training import drain, train
from search_spaces import space_of

PATIENCE = 20.0  # seconds that a member whose connection broke leaves the others to say why


class _Apart(Exception):
    """The connection to the others has broken."""


class _Member:
    """Looks after nobody: the first process does."""

    def waits(self) -> None:
        """Do nothing."""

    def lost(self, error: Exception) -> BaseException:
        """Return what tells a broken connection from a failure of this process."""
        return _Apart(str(error))


def main() -> None:
    """Train beside the first process until it ends this one."""
    threading.Thread(target=_end_with_the_first, daemon=True).start()
    place, rank, size, device = Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
    torch.set_num_threads(int(sys.argv[6]))
    try:
        _train(place, rank, size, torch.device(device))
    except _Apart:
        time.sleep(PATIENCE)
        os._exit(1)
    except BaseException as error:  # noqa: BLE001  the first process books it
        _say(place / f"failure-{rank}", error)
        os._exit(1)
    threading.Event().wait()  # an end before the first process's is a failure


def _train(place: Path, rank: int, size: int, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_device(device)
    (place / f"ready-{rank}").touch()
    join(place, rank, size, device)
    group = Group(rank, size, _Member())
    with device:
        trial, data, micro_batch = share_trial(group, None, None, None)
    torch.manual_seed(trial.seed_for(f"torch, process {rank}"))
    model = space_of(trial.architecture).build(
        trial.architecture, data.task, seed=trial.seed_for("weights")
    )
    generator = torch.Generator(device=device).manual_seed(trial.seed_for("training"))
    steps = train(
        model.to(device),
        data,
        trial.recipe,
        trial.recipe.attack(),
        generator,
        micro_batch=micro_batch,
        group=group,
    )
    drain(steps)


def _say(path: Path, error: BaseException) -> None:
    status = "error"
    if isinstance(error, Exception) and device_fault(error):
        status = "device"
    elif isinstance(error, Exception) and out_of_memory(error):
        status = "oom"
    elif isinstance(error, Diverged):
        status = "diverged"
    reason = str(error) if status == "diverged" else one_line(error)
    trace = writable(traceback.format_exc())
    found = {"status": status, "reason": reason, "trace": trace}
    path.write_text(json.dumps(found), encoding="utf-8")


def _end_with_the_first() -> None:
    """End this process when the first one's end of a pipe is closed, which it also is by a kill."""
    while os.read(0, 1024):
        pass
    os._exit(1)
