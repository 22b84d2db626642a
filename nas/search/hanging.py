"""Trials that hang: said once, and given up some time after their limit.

A trial ends itself at its limit, and a worker that never comes back to Python ends itself a little
later. What is left is a worker that is stopped as a whole, or whose node no longer answers: only
the driver can give that up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from nas.search.running import Row

FLOOR_SECONDS = 30.0  # silence that is never called hanging, however short the epochs
GRACE = 3.0, 0.1  # seconds, and share of the limit, after which a worker ends itself
AFTER = 5.0, 0.1  # the same, after that, until its driver gives it up


def grace_seconds(limit: float, grace: tuple[float, float] = GRACE) -> float:
    """Return how long after a limit something is still waited for."""
    return max(grace[0], grace[1] * limit)


@dataclass(frozen=True)
class Silence:
    """A trial that has not told of anything for long.

    Attributes:
        row: the trial.
        usual_seconds: the median time of what it is at.
    """

    row: Row
    usual_seconds: float

    def __str__(self) -> str:
        on = f" on {self.row.place}" if self.row.place else ""
        times = self.row.silent_seconds / self.usual_seconds
        silent = duration(self.row.silent_seconds)
        what = f"has told of no epoch for {silent}"
        if self.row.last_turn:
            what = f"is at its last epoch and its scores for {silent}"
        return f"trial {self.row.number}{on} {what}, {times:.0f} times the median"


class Hangs:
    """Remembers which trials were said to hang, and which were given up.

    Args:
        hanging_after: a multiple of the median time of an epoch; None never says that one hangs.
        limit: ``time_limit_seconds``; None gives nothing up.
    """

    def __init__(self, hanging_after: float | None, limit: float | None) -> None:
        self._after, self._limit = hanging_after, limit
        self._said: set[tuple[int, int]] = set()
        self._given_up: set[int] = set()

    def silent(
        self, rows: Iterable[Row], usual_seconds: Callable[[Row], float | None]
    ) -> list[Silence]:
        """Return the trials that hang at an epoch, each once."""
        found: list[Silence] = []
        if self._after is None:
            return found
        for row in rows:
            if row.silent_seconds < FLOOR_SECONDS or (row.number, row.epoch) in self._said:
                continue
            usual = usual_seconds(row)
            if usual is not None and row.silent_seconds > self._after * usual:
                self._said.add((row.number, row.epoch))
                found.append(Silence(row, max(usual, 1e-3)))
        return found

    def overdue(self, rows: Iterable[Row]) -> list[tuple[Row, str]]:
        """Return the trials to give up, each once, with the reason of their outcome."""
        if self._limit is None:
            return []
        most = self._limit + grace_seconds(self._limit) + grace_seconds(self._limit, AFTER)
        late = [r for r in rows if r.seconds > most and r.number not in self._given_up]
        self._given_up |= {row.number for row in late}
        return [(row, self._reason(row)) for row in late]

    def forget(self, number: int) -> None:
        """Take a trial back that ended; if it begins again it may hang again."""
        self._given_up.discard(number)
        self._said = {(n, epoch) for n, epoch in self._said if n != number}

    def _reason(self, row: Row) -> str:
        on = f" on {row.place}" if row.place else ""
        return (
            f"the limit of {self._limit:g} s was passed after epoch {row.epoch} of {row.epochs}; "
            f"its worker{on} did not answer and was ended"
        )


def duration(seconds: float) -> str:
    """Return a time for people: ``42 s``, ``5m20``, ``3h07m``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}"
    return f"{whole // 3600}h{whole // 60 % 60:02d}m"
