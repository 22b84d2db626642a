"""Several drivers on one study: who they are, which of them still live, and whose turn it is.

A driver counts up in an attribute of the study. Another that looks at it several times, one beat
apart, and finds the same count takes it for dead; no clock is compared with another's, and a look
that the storage does not answer counts for nothing.
"""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial

from nas.errors import LedgerLost
from nas.ledger.results import DRIVER as DRIVER
from nas.ledger.results import RUN_ID
from nas.ledger.storages import storage_fault

PREFIX = "driver:"
BEAT_SECONDS, MISSES = 30.0, 5


class Drivers:
    """The drivers of a study, as one of them sees them.

    Args:
        study: in a storage that several drivers may open.
        me: the id of this driver; that of the run where it began the study.
        run: its run directory.
        beat_seconds: between two beats.
        misses: so many looks in a row at the same count make a driver dead.
    """

    def __init__(
        self,
        study: Study,
        me: str,
        run: Path,
        *,
        beat_seconds: float = BEAT_SECONDS,
        misses: int = MISSES,
    ) -> None:
        self.me, self.run = me, str(run.resolve())
        self._study, self._seconds, self._misses = study, beat_seconds, misses
        self._founder = study.user_attrs.get(RUN_ID, me)
        self._seen: dict[str, tuple[int, int]] = {}  # id -> (count, looks in a row)
        self._attributes: dict[str, Any] = {}
        self._count = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Beat once, and from now on in the background."""
        if self._thread is None:
            self._stop.clear()
            self.beat()
            self._thread = threading.Thread(target=self._beat_on, daemon=True, name="heartbeat")
            self._thread.start()

    def leave(self) -> None:
        """Say that this driver has gone: others may take over what it left at once."""
        if self._thread is None:
            return
        self._stop.set()
        self._thread.join(timeout=self._seconds)
        self._thread = None
        try:
            self._write(left=True)
        except Exception as error:
            if not _missed(error):  # it is gone anyway, and will be seen dead
                raise

    def beat(self) -> None:
        """Look at the others, and count up."""
        attributes = self._study.user_attrs
        for driver, value in _drivers(attributes).items():
            count, looks = self._seen.get(driver, (-1, 0))
            self._seen[driver] = (value["beat"], looks + 1 if value["beat"] == count else 0)
        mine = _drivers(attributes).get(self.me)
        self._count = max(self._count, mine["beat"] if mine else 0) + 1
        self._write()

    def look(self) -> None:
        """Read what every driver last said; :meth:`gone` goes by it."""
        self._attributes = _drivers(self._study.user_attrs)

    def owner(self, trial: FrozenTrial) -> str:
        """Return the driver that runs a trial; one of an earlier version is the run's own."""
        owner: str = trial.user_attrs.get(DRIVER, self._founder)
        return owner

    def gone(self, driver: str) -> bool:
        """Whether a driver's trials may be taken over: our own of before, or of one that is dead.

        One that never said anything is of an earlier version, which has the study to itself.
        """
        said = self._attributes.get(driver)
        if driver == self.me or said is None or said["left"]:
            return True
        count, looks = self._seen.get(driver, (-1, 0))
        return bool(said["beat"] == count and looks >= self._misses)

    def left(self, driver: str) -> bool:
        """Whether a driver said that it left."""
        return bool((self._attributes.get(driver) or {}).get("left"))

    def _write(self, *, left: bool = False) -> None:
        here = {"run": self.run, "host": socket.gethostname(), "pid": os.getpid()}
        said = {"beat": self._count, "left": left, **here}
        self._study.set_user_attr(PREFIX + self.me, said)

    def _beat_on(self) -> None:
        while not self._stop.wait(self._seconds):
            try:
                self.beat()
            except Exception as error:
                if not _missed(error):
                    raise


def driver_ids(study: Study) -> set[str]:
    """Return every driver that ever worked on a study."""
    return set(_drivers(study.user_attrs))


def drivers_said(study: Study) -> dict[str, dict[str, Any]]:
    """Return what every driver last said of itself: ``left``, ``host``, ``pid``, ``run``."""
    return _drivers(study.user_attrs)


def _drivers(attributes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {k.removeprefix(PREFIX): v for k, v in attributes.items() if k.startswith(PREFIX)}


def _missed(error: Exception) -> bool:
    return isinstance(error, LedgerLost) or storage_fault(error) is not None
