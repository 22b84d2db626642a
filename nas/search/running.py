"""The trials that run at this moment, as far as they have told of themselves.

A driver keeps :class:`Running`, which knows nothing of Ray: what began, each epoch, what ended. It
serves the live display and the watch for trials that hang (:mod:`nas.search.hanging`); what others
read of it is a file in the run directory (:mod:`nas.search.running_file`).
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

REMEMBERED = 200  # turns of which medians are taken


@dataclass(frozen=True)
class Row:
    """A trial that runs.

    Attributes:
        number: of the trial.
        epochs: the number of its last one, over all its repeats.
        seconds: since it began.
        silent_seconds: since it last told of an epoch, or began.
        epoch: the last one that it told of; 0 before the first.
        robust_accuracy: after that one; None before the first, or where no images judge it.
        host: name of its node; empty while nobody knows.
        gpus: ids of its GPUs.
    """

    number: int
    epochs: int
    seconds: float
    silent_seconds: float
    epoch: int = 0
    robust_accuracy: float | None = None
    host: str = ""
    gpus: tuple[int, ...] = ()

    @property
    def last_turn(self) -> bool:
        """Whether it is at its last epoch and its scores, after which it tells of its end."""
        return self.epoch >= self.epochs - 1

    @property
    def place(self) -> str:
        """Where it runs, for people; empty while nobody knows."""
        gpus = f" GPU {', '.join(map(str, self.gpus))}" if self.gpus else ""
        return f"{self.host}{gpus}"


@dataclass
class _Trial:
    epochs: int
    began: float
    told: float
    epoch: int = 0
    robust_accuracy: float | None = None
    host: str = ""
    gpus: tuple[int, ...] = ()
    turns: list[float] = field(default_factory=list)


class Running:
    """The book of running trials.

    A turn is what lies between two words of a trial: an epoch, or the last epoch with the scores.

    Args:
        clock: seconds that only grow.

    Attributes:
        changes: how often anything has changed.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._trials: dict[int, _Trial] = {}
        self._epochs: deque[float] = deque(maxlen=REMEMBERED)
        self._ends: deque[float] = deque(maxlen=REMEMBERED)
        self.changes = 0

    def __len__(self) -> int:
        return len(self._trials)

    def begin(self, number: int, epochs: int) -> None:
        """Note a trial that a worker has taken, perhaps not for the first time."""
        now = self._clock()
        self._trials[number] = _Trial(epochs, now, now)
        self.changes += 1

    def at(self, number: int, host: str, gpus: tuple[int, ...] = ()) -> None:
        """Note where a trial runs."""
        trial = self._trials.get(number)
        if trial is not None and (trial.host, trial.gpus) != (host, gpus):
            trial.host, trial.gpus = host, gpus
            self.changes += 1

    def told(
        self,
        number: int,
        epoch: int,
        robust_accuracy: float | None = None,
        *,
        of: int | None = None,
        again: bool = False,
    ) -> None:
        """Note an epoch of a trial; one of a trial that does not run is no news.

        ``of``: the number of its last epoch, which comes sooner where training ends early.
        ``again``: it was trained by an earlier process, so that the time since then is no turn.
        """
        trial = self._trials.get(number)
        if trial is None:
            return
        now = self._clock()
        if not again:
            self._epochs.append(now - trial.told)
            trial.turns.append(now - trial.told)
        trial.told, trial.epoch, trial.robust_accuracy = now, epoch, robust_accuracy
        trial.epochs = trial.epochs if of is None else of
        self.changes += 1

    def end(self, number: int, *, whole: bool = True) -> None:
        """Note that a trial runs no more; ``whole``: it came to its scores, so its time counts."""
        trial = self._trials.pop(number, None)
        if trial is None:
            return
        if whole and trial.epoch >= trial.epochs - 1:
            self._ends.append(self._clock() - trial.told)
        self.changes += 1

    def rows(self) -> tuple[Row, ...]:
        """Return the trials that run, by number."""
        now = self._clock()
        return tuple(
            Row(
                number,
                trial.epochs,
                now - trial.began,
                now - trial.told,
                trial.epoch,
                trial.robust_accuracy,
                trial.host,
                trial.gpus,
            )
            for number, trial in sorted(self._trials.items())
        )

    def usual_seconds(self, row: Row) -> float | None:
        """Return the median time of the turn that a trial is at; None where none is known.

        Of an epoch that is its own epochs', once it has two, else all trials'. The last turn also
        scores, for as long as it takes, so it is compared with other last turns alone.
        """
        trial = self._trials.get(row.number)
        if trial is None:
            return None
        own = trial.turns if len(trial.turns) >= 2 else self._epochs
        turns = self._ends if row.last_turn else own
        return statistics.median(turns) if turns else None
