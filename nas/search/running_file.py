"""``running.json``: the running trials of a search, for whoever looks at its run directory.

The driver writes it whole, every few seconds at most, and takes it away when the search ends. A
file of a driver that was killed stays: :func:`seen` says what is known of that driver.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from nas.files import write_whole
from nas.ledger.living import Holder, holder, lives
from nas.search.running import Row, Running

FILE = "running.json"
LEAST_SECONDS, BEAT_SECONDS = 2.0, 10.0  # between two writes: after a change, and without one
SILENT_SECONDS = 120.0  # without a write, after which a driver is not called living; clocks differ

State = Literal["none", "living", "silent", "dead"]


class RunningFile:
    """Keeps the file of a book.

    Args:
        run: the run directory.
        book: what is written.
        total: how many trials the search will have at most.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        run: Path,
        book: Running,
        total: int,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._book, self._total, self._clock = run / FILE, book, total, clock
        self._driver = asdict(Holder.me())
        self._written: tuple[float, int] | None = None  # when, and after how many changes

    def tick(self) -> None:
        """Write if there is news, or nothing was written for long.

        What cannot be written (a full disk) is left: the ledger will say so.
        """
        now = self._clock()
        if self._written is not None:
            when, changes = self._written
            least = LEAST_SECONDS if changes != self._book.changes else BEAT_SECONDS
            if now - when < least:
                return
        self._written = now, self._book.changes
        content = {
            "driver": self._driver,
            "written": time.time(),
            "total": self._total,
            "running": [vars(row) for row in self._book.rows()],
        }
        try:
            write_whole(
                self._path, lambda p: p.write_text(json.dumps(content) + "\n", encoding="utf-8")
            )
        except OSError:
            pass

    def close(self) -> None:
        """Take the file away."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError:  # a file system that has become read-only
            pass


@dataclass(frozen=True)
class Seen:
    """What is known of a run's driver and its trials.

    Attributes:
        state: ``none`` drives it; ``living``; ``dead``: its process is gone without an end in
            order; ``silent``: nothing says that it lives, and it is another machine's.
        driver: its process, where there is one.
        age_seconds: since it last wrote, where it has.
        total: how many trials there will be, as it says.
        rows: its trials, as they were then.
    """

    state: State
    driver: Holder | None = None
    age_seconds: float | None = None
    total: int | None = None
    rows: tuple[Row, ...] = ()

    @property
    def over(self) -> bool:
        """Whether what the ledger calls running certainly does not run under this driver."""
        return self.state in ("none", "dead")


def seen(run: Path, now: Callable[[], float] = time.time) -> Seen:
    """Return what a run directory says of its driver; one that is half written says less."""
    driver = holder(run)
    if driver is None:
        return Seen("none")
    living = lives(driver)
    content = _content(run)
    if content is None or content["driver"] != driver:  # not written yet, or its predecessor's
        return Seen(_state(living, None), driver)
    age = max(0.0, now() - content["written"])
    state = _state(living, age)
    return Seen(state, driver, age, content["total"], content["rows"])


def _state(living: bool | None, age: float | None) -> State:
    if living is False:
        return "dead"
    if age is None:
        return "living" if living else "silent"
    return "living" if age < SILENT_SECONDS else "silent"


def _content(run: Path) -> dict[str, Any] | None:
    """Return what the file says; None where there is none, or it is not one of ours."""
    try:
        found = json.loads((run / FILE).read_text(encoding="utf-8"))
        return {
            "driver": Holder(int(found["driver"]["pid"]), str(found["driver"]["host"])),
            "written": float(found["written"]),
            "total": int(found["total"]),
            "rows": tuple(_row(row) for row in found["running"]),
        }
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _row(data: dict[str, Any]) -> Row:
    known = {field.name: data[field.name] for field in fields(Row) if field.name in data}
    return Row(**{**known, "gpus": tuple(known.get("gpus", ()))})
