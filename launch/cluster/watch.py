"""Watches the running trials: their book, its file, the display, and trials that hang."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import launch.cluster.environment  # isort: skip  # noqa: F401  before ray
import ray

from launch.cluster.place import Place
from launch.cluster.worker import AGAIN, OF, PLACE, SAYS
from launch.config.sections import Resources
from launch.show.progress import Progress
from nas.search.hanging import Hangs
from nas.search.running import Running
from nas.search.running_file import RunningFile
from nas.trial.trial import Trial

EVERY_SECONDS = 1.0  # Tune's loop turns ten times a second and more
HELD_UP_SECONDS = 10.0  # without a look, after which this process itself was held up
UNKNOWN_SECONDS = 5.0  # of a first epoch, after which Ray is asked where it runs


class Watch:
    """Is told of trials and their epochs, and looks at them once a second.

    Args:
        book: of the running trials.
        run: the run directory.
        progress: shows them.
        resources: of the configuration: when a trial hangs, and when it is given up.
        total: how many trials the search will have at most.
        kill: ends a worker.
        locate: returns the name of a worker's node, empty where it is not known.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        book: Running,
        run: Path,
        progress: Progress,
        resources: Resources,
        total: int,
        *,
        kill: Callable[[Any], None] | None = None,
        locate: Callable[[Any], str] = lambda worker: "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._book, self._progress, self._clock = book, progress, clock
        self._file = RunningFile(run, book, total, clock=clock)
        self._hangs = Hangs(resources.hanging_after, resources.time_limit_seconds)
        self._kill, self._locate = kill or end_worker, locate
        self._workers: dict[int, Any] = {}  # number -> the actor that runs it
        self._places: dict[Any, Place] = {}  # id of an actor -> where it said that it is
        self._asked: set[Any] = set()  # ids of actors of which Ray was asked where they are
        self._given_up: dict[int, str] = {}
        self._looked = clock() - EVERY_SECONDS
        self._trusts_from = clock()  # what is silent; before it news may wait that nobody has read

    def begin(self, number: int, trial: Trial, worker: Any = None) -> None:
        """Note that a worker has taken a trial."""
        self._book.begin(number, trial.recipe.epochs * trial.repeats)
        self._workers[number] = worker
        if (place := self._places.get(_id(worker))) is not None:
            self._book.at(number, place.host, place.gpus)

    def told(self, number: int, result: Mapping[str, Any]) -> bool:
        """Note what a worker said after an epoch; return whether it has just trained it.

        Else it is one of before, of a trial that goes on from a checkpoint.
        """
        if OF not in result:
            return False  # of its end
        for line in result.get(SAYS, ()):
            self._progress.say(f"trial {number} {line}")
        again = bool(result.get(AGAIN))
        place = Place.of(result[PLACE])
        self._places[_id(self._workers.get(number))] = place
        self._book.at(number, place.host, place.gpus)
        robust = float(result["robust_accuracy"])
        judged = None if math.isnan(robust) else robust
        of = int(result[OF])
        self._book.told(number, int(result["epoch"]), judged, of=of, again=again)
        return not again

    def end(self, number: int, *, whole: bool) -> str | None:
        """Note that a trial does not run any more; return why it was given up, if it was.

        ``whole``: it came to an outcome of its own.
        """
        self._book.end(number, whole=whole)
        self._hangs.forget(number)
        self._workers.pop(number, None)
        return self._given_up.pop(number, None)

    def tick(self) -> None:
        """Look at what runs, if the last look was a second ago."""
        now = self._clock()
        if now - self._looked < EVERY_SECONDS:
            return
        if now - self._looked > HELD_UP_SECONDS:
            self._trusts_from = now + HELD_UP_SECONDS
        self._looked = now
        self._ask_where()
        rows = self._book.rows() if now >= self._trusts_from else ()
        for silence in self._hangs.silent(rows, self._book.usual_seconds):
            self._progress.say(str(silence))
        for row, reason in self._hangs.overdue(rows):
            self._given_up[row.number] = reason
            self._kill(self._workers.get(row.number))
        self._progress.tick()
        self._file.tick()

    def close(self) -> None:
        """End with the search."""
        self._file.close()

    def _ask_where(self) -> None:
        """Find out where trials are whose first epoch takes long; of each worker once."""
        for row in self._book.rows():
            worker = self._workers.get(row.number)
            if row.host or worker is None or row.seconds < UNKNOWN_SECONDS:
                continue
            if _id(worker) not in self._asked:
                self._asked.add(_id(worker))
                self._places[_id(worker)] = Place("", self._locate(worker))
            if (place := self._places.get(_id(worker))) is not None:
                self._book.at(row.number, place.host, place.gpus)


def end_worker(worker: Any) -> None:
    """End the process of an actor, also one that is stopped: Ray kills it where it does not end.

    Whoever waits for it hears at once that it has died.
    """
    if worker is not None:
        ray.kill(worker, no_restart=True)


def _id(worker: Any) -> Any:
    """Return what stands for an actor without keeping it alive, as its handle would."""
    return getattr(worker, "_actor_id", worker)
