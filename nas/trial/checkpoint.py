"""A trial that is cut off in training goes on from an epoch's end, with the same numbers.

After an epoch all that the next one depends on is written to one file of the trial's directory:
weights, buffers, optimizer, every generator of random numbers, reports and scores so far. Whoever
begins the same trial there again reads it and trains the epochs that are left, equal to the last
digit to a training that was never cut off. A file that does not fit (another trial, torch, device,
number of threads), or that is damaged, is none: the trial begins anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from nas.disk import free_on, shown_size
from nas.errors import first_line
from nas.files import write_whole
from nas.trial.checkpoint_file import (
    NAME,
    Kept,
    Unfit,
    checkpoints_in,
    key_of,
    read_kept,
    to_parts,
    write_parts,
)
from nas.trial.generators import draw_on, drawn
from nas.trial.state import Epoch, TrainingState
from nas.trial.stateful import fits, kept_of, restored
from nas.trial.trial import Trial

SHARE = 50  # times what the last one took to write lie between two, at least


class Checkpoints:
    """Those of one trial: a file for each repeat that has begun, written when it is due.

    One is due after an epoch once ``every`` seconds have passed since the trial began or the last
    one was written, and no fewer than ``SHARE`` times what that took: a trial that is shorter
    writes none, and a longer one spends at most a fiftieth of its time on them.

    Where there is no room the file is skipped, and a line says so once.

    Args:
        directory: of the trial.
        every: seconds; 0: after each epoch, whatever it takes; None: nothing is read or written.
        most_bytes: that these files may take; None: as many as they take.
        reserve_bytes: stay free on the file system.
        clock: seconds that only grow.

    Attributes:
        lines: what a user should hear, to be taken from here.
        spent: seconds of earlier processes that were gone on from.
        repeating: the epoch that was handed over last is one of an earlier process.
    """

    def __init__(
        self,
        directory: Path | None = None,
        every: float | None = None,
        *,
        most_bytes: int | None = None,
        reserve_bytes: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._every = None if directory is None else every
        self._most, self._reserve, self._clock = most_bytes, reserve_bytes, clock
        self._written, self._took = clock(), 0.0
        self._ended: list[tuple[Checkpoint, Kept]] = []  # repeats that no file holds yet
        self._troubled = False
        self.lines: list[str] = []
        self.spent = 0.0
        self.repeating = False

    def of(
        self, trial: Trial, environment: Mapping[str, Any], micro_batch: int | None
    ) -> Checkpoint:
        """Return that of one repeat, with what an earlier process left.

        Args:
            trial: with one repeat.
            environment: of :func:`nas.trial.machine.environment_of`.
            micro_batch: images at a time.
        """
        key = key_of(trial, environment, micro_batch)
        if self._every is None or self._directory is None:
            return Checkpoint(self, None, key)
        return Checkpoint(self, self._directory / f"{NAME}{trial.repeat}", key)

    def due(self) -> bool:
        """Whether it is time to write."""
        if self._every is None:
            return False
        apart = max(self._every, SHARE * self._took) if self._every else 0.0
        return self._clock() - self._written >= apart

    def end(self, checkpoint: Checkpoint, kept: Kept) -> None:
        """Remember a repeat that has ended; it is written with the next one, when that is due."""
        if self._every is not None:
            self._ended.append((checkpoint, kept))

    def write(self, checkpoint: Checkpoint, kept: Kept) -> None:
        """Write what has ended and this one; where that cannot be, say so and go on."""
        began = self._clock()
        try:
            while self._ended:
                self._write(*self._ended[0])
                self._ended.pop(0)
            self._write(checkpoint, kept)
        except _NoRoom as error:
            self._trouble(str(error))
        except OSError as error:
            self._trouble(first_line(error))
        except TypeError as error:  # a state of somebody's that no file holds
            self._every = None
            self._trouble(str(error))
        self._written = self._clock()
        self._took = self._written - began

    def _write(self, checkpoint: Checkpoint, kept: Kept) -> None:
        path = checkpoint.path
        assert path is not None
        content = to_parts(checkpoint.key, kept)
        size = sum(map(len, content))
        others = sum(p.stat().st_size for p in checkpoints_in(path.parent) if p != path)
        if self._most is not None and others + size > self._most:
            raise _NoRoom(
                f"{shown_size(others + size)} are more than keep.disk_bytes leaves it, "
                f"{shown_size(self._most)}"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        if (free := free_on(path.parent)) - size < self._reserve:
            raise _NoRoom(
                f"of {shown_size(free)} that are free {shown_size(size)} would leave less than "
                f"keep.reserve_bytes, {shown_size(self._reserve)}"
            )
        write_whole(path, lambda partial: write_parts(partial, content), durable=True)

    def _trouble(self, why: str) -> None:
        if not self._troubled:
            self._troubled = True
            self.lines.append(f"has no new checkpoint: {why}")


class Checkpoint:
    """That of one repeat; see :class:`Checkpoints`.

    Attributes:
        path: of its file; None: there is none.
        key: what it must be of.
        kept: what an earlier process left; None: the repeat begins.
    """

    def __init__(self, family: Checkpoints, path: Path | None, key: Mapping[str, Any]) -> None:
        self._family = family
        self.path, self.key = path, key
        self._state: TrainingState | None = None
        self.kept: Kept | None = None

    def read(self, device: torch.device) -> Kept | None:
        """Return what an earlier process left; None where there is none that fits.

        Args:
            device: of the training.
        """
        if self.path is None:
            return None
        try:
            self.kept = read_kept(self.path, self.key, device)
        except FileNotFoundError:
            return None
        except (OSError, Unfit) as error:
            self._anew(first_line(error))
            return None
        return self.kept

    def refuse(self, model: torch.nn.Module) -> Kept | None:
        """Return what was kept; None where its weights are not those of a model."""
        state = self.kept.state if self.kept else None
        if state is not None and not fits(model, state["model"]):
            self.kept = None
            self._anew("it is of a network with other weights")
        return self.kept

    def epochs(self) -> Iterator[Epoch]:
        """Yield the reports of the epochs that need not be trained again, and say that it goes on.

        Whoever hands them over does so before the first new one.
        """
        if self.kept is None:
            return
        family, kept = self._family, self.kept
        family.spent += kept.seconds
        of = f" of repeat {self.key['repeat']}" if self.key["repeat"] else ""
        family.lines.append(f"goes on after epoch {len(kept.epochs)}{of}, from its checkpoint")
        family.repeating = True
        yield from kept.epochs
        family.repeating = False

    def begin(self, state: TrainingState) -> None:
        """Take the state of a training that begins, and put what was kept into it."""
        self._state = state
        if self.kept is None or self.kept.state is None or self.kept.drawn is None:
            return
        for name, was in self.kept.state.items():
            setattr(state, name, restored(getattr(state, name), was))
        draw_on(self.kept.drawn, state.generator.device)
        self.kept = replace(self.kept, state=None, drawn=None)  # memory that training may need

    def note(
        self, scores: Mapping[str, float], seconds: float, score_seconds: float, peak: int | None
    ) -> None:
        """Write the state after an epoch, if that is due; arguments as of :class:`Kept`."""
        if self._state is None or not self._family.due():
            return
        state = self._state
        kept = Kept(
            tuple(state.epochs),
            state={f.name: kept_of(getattr(state, f.name)) for f in fields(state)},
            drawn=drawn(state.generator.device),
            scores=dict(scores),
            seconds=seconds,
            score_seconds=score_seconds,
            peak=self.peak(peak),
        )
        self._family.write(self, kept)

    def end(self, ended: dict[str, Any]) -> None:
        """Note the fields of a whole ``Evaluation``: other repeats of its trial may follow."""
        self._family.end(self, Kept(ended["epochs"], ended=ended, seconds=ended["seconds"]))

    def peak(self, bytes_now: int | None) -> int | None:
        """Return the most bytes on the GPU, those of earlier processes included."""
        before = self.kept.peak if self.kept else None
        return bytes_now if before is None or bytes_now is None else max(before, bytes_now)

    def _anew(self, why: str) -> None:
        self._family.lines.append(f"begins anew, not from its checkpoint: {why}")


class _NoRoom(Exception):
    """A file that would take too much."""
