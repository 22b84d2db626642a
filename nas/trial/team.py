"""The other processes that train a trial with this one: started, watched and ended.

A member (:mod:`nas.trial.member`) is a Python process of this machine. It ends when this process
does, however that ends: it reads a pipe that nobody writes to. When a member dies, or a limit has
passed and something still waits, all members are ended; whoever waited for them is told why.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from metrics import deadline
from nas.data.arrays import Data, Split
from nas.errors import InputError, ProcessLost, cut
from nas.trial.group import Group
from nas.trial.trial import Trial

MEETING = timedelta(seconds=60)  # until all have found each other
WAITING = timedelta(days=30)  # for a process that judges or scores: a death is seen otherwise
LOOK_SECONDS = 0.1  # between looks at members
LATE_SECONDS = 2.0  # after a limit, when what still waits is ended
GONE_SECONDS = 30.0  # until a member whose connection broke is seen to have ended
BEGIN = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from nas.trial.member import main"


@contextmanager
def team_of(
    trial: Trial, data: Data, size: int, *, micro_batch: int | None = None
) -> Iterator[Team | None]:
    """Start the other processes of a trial, and end them; None where it has one.

    Args:
        trial: of one repeat.
        data: on this process's device; the others get a copy of the training images.
        size: how many processes train the trial, this one included.
        micro_batch: images at a time in each.

    Raises:
        InputError: a GPU for each is not there.
    """
    if size == 1:
        yield None
        return
    team = Team(trial, data, size, micro_batch)
    try:
        yield team
    finally:
        team.end()


class Team:
    """The members, as the first process sees them; see :func:`team_of`."""

    def __init__(self, trial: Trial, data: Data, size: int, micro_batch: int | None) -> None:
        self._trial, self._data, self._micro_batch = trial, data, micro_batch
        self._device, self._size = data.train.labels.device, size
        if self._device.type == "cuda" and torch.cuda.device_count() < size:
            raise InputError(
                f"expected a GPU for each of {size} processes, got {torch.cuda.device_count()}"
            )
        self._scratch = tempfile.TemporaryDirectory(prefix="psinas-team-")
        self._at: float | None = None  # when the limit passes
        self._first: dict[int, int] = {}  # rank -> exit code, of those that ended by themselves
        self._ended, self._lock = threading.Event(), threading.Lock()
        self._joined = False
        self._members: dict[int, subprocess.Popen[bytes]] = {}
        for rank in range(1, size):
            self._members[rank] = self._started(rank)
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    @property
    def pids(self) -> tuple[int, ...]:
        """The members' process ids."""
        return tuple(member.pid for member in self._members.values())

    def joined(self) -> Group:
        """Return the group of all, once each is there and has trial and images.

        Raises:
            ProcessLost: a member is gone.
            TimeUp: the limit has passed.
        """
        scratch = Path(self._scratch.name)
        while not all((scratch / f"ready-{rank}").exists() for rank in self._members):
            self.waits()
            deadline.check()
            time.sleep(LOOK_SECONDS / 4)
        join(scratch, 0, self._size, self._device)
        self._joined = True
        group = Group(0, self._size, self)
        share_trial(group, self._trial, self._data, self._micro_batch)
        return group

    def waits(self) -> None:
        """Note the limit; raise :class:`ProcessLost` where a member is gone."""
        self._at = deadline.ends_at()
        if self._first:
            raise self._why("")

    def lost(self, error: Exception) -> BaseException:
        """Return why the group has broken: what its first member to end had to say."""
        until = time.monotonic() + GONE_SECONDS
        deadline.check()
        while not self._look() and time.monotonic() < until:
            time.sleep(LOOK_SECONDS / 4)
            deadline.check()
        return self._why(str(error))

    def end(self) -> None:
        """End every member; give back what this process has for the group."""
        self._ended.set()
        self._watcher.join()
        self._kill()
        if self._joined and distributed.is_initialized():
            distributed.destroy_process_group()
        self._joined = False
        self._scratch.cleanup()

    def _started(self, rank: int) -> subprocess.Popen[bytes]:
        place = Path(self._scratch.name)
        threads = torch.get_num_threads()
        cuda = f"cuda:{rank}" if self._device.type == "cuda" else "cpu"
        arguments = [str(place), str(rank), str(self._size), cuda, str(threads)]
        environment = {**os.environ, **_on_this_machine(), "OMP_NUM_THREADS": str(threads)}
        with (place / f"errors-{rank}").open("wb") as errors:
            return subprocess.Popen(
                [sys.executable, "-P", "-c", f"{BEGIN}; main()", json.dumps(sys.path), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=environment,
                start_new_session=True,  # a Ctrl-C in a terminal is not theirs
            )

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            late = self._at is not None and time.monotonic() > self._at + LATE_SECONDS
            if self._look() or late:
                self._kill()
                if self._joined and self._device.type == "cuda":
                    _abort()
                return

    def _look(self) -> bool:
        """Return whether a member has ended by itself."""
        with self._lock:
            for rank, member in self._members.items():
                if rank not in self._first and not self._ended.is_set():
                    if (code := member.poll()) is not None:
                        self._first[rank] = code
            return bool(self._first)

    def _kill(self) -> None:
        with self._lock:  # those that are killed here have not ended by themselves
            for member in self._members.values():
                member.kill()
            for member in self._members.values():
                member.wait()
                if member.stdin is not None:
                    member.stdin.close()

    def _why(self, error: str) -> ProcessLost:
        for rank, code in self._first.items():
            whose = f"process {rank + 1} of {self._size}"
            said = _read(Path(self._scratch.name, f"failure-{rank}"))
            if said:
                found = json.loads(said)
                return ProcessLost(found["status"], f"{whose}: {found['reason']}", found["trace"])
            last = _read(Path(self._scratch.name, f"errors-{rank}")).strip().split("\n")[-1]
            how = _signal(-code) if code < 0 else f"with exit code {code}"
            return ProcessLost("error", cut(f"{whose} died {how}" + (f": {last}" if last else "")))
        return ProcessLost("error", cut(f"the processes of the trial lost each other: {error}"))


def join(place: Path, rank: int, size: int, device: torch.device) -> None:
    """Meet the other processes of a trial; all of them are on this machine.

    NCCL joins GPUs where each process has one of its own, Gloo the rest.
    """
    kind = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    store = distributed.FileStore(str(place / "meeting"), size)  # type: ignore[attr-defined]
    before = {name: os.environ.get(name) for name in _on_this_machine()}
    os.environ.update(_on_this_machine())
    try:
        distributed.init_process_group(
            kind, store=store, rank=rank, world_size=size, timeout=MEETING
        )
        distributed.barrier()
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
    later = (
        getattr(distributed, "set_timeout", None) or distributed.distributed_c10d._set_pg_timeout
    )
    later(WAITING)


def share_trial(
    group: Group, trial: Trial | None, data: Data | None, micro_batch: int | None
) -> tuple[Trial, Data, int | None]:
    """Return what the first process trains: its trial, a copy of its images, its micro-batch.

    The copy is on torch's default device of each process, and has no validation images.
    """
    description: Any = None
    if trial is not None and data is not None:
        train = data.train
        layout = [(tuple(t.shape), t.dtype) for t in (train.pixels, train.labels)]
        description = trial, data.task, layout, micro_batch
    trial, task, layout, micro_batch = group.told(description)
    if data is None:
        pixels, labels = (torch.empty(shape, dtype=dtype) for shape, dtype in layout)
        data = Data(Split(pixels, labels), Split(pixels[:0], labels[:0]), task)
    group.copied([data.train.pixels, data.train.labels])
    return trial, data, micro_batch


def _on_this_machine() -> Mapping[str, str]:
    """Return settings that let processes meet over the loopback interface, where it has a name."""
    names = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
    return {key: name for key in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME") for name in names}


def _abort() -> None:
    """End what waits on a GPU for a process that is gone."""
    distributed.distributed_c10d._abort_process_group()


def _signal(number: int) -> str:
    try:
        return f"of {signal.Signals(number).name}"
    except ValueError:
        return f"of signal {number}"


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="backslashreplace") if path.exists() else ""
