"""A limit of wall time that holds inside long computations.

Whoever has a limit computes within :func:`within` or :func:`until`; loops that take long call
:func:`check` at every turn, which raises :class:`TimeUp` once the limit has passed. Every forward
pass of :mod:`metrics.answers` checks, and so does every step of training. A check reads one clock:
0.2 µs. Limits belong to the context that sets them: other threads do not see them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

Y = TypeVar("Y")
R = TypeVar("R")


class TimeUp(BaseException):
    """A limit has passed: no :class:`Exception`, since nothing that it interrupts has failed.

    Attributes:
        seconds: the limit.
        where: what was being done, as the last :func:`doing` said it.
    """

    def __init__(self, seconds: float, where: str = "") -> None:
        super().__init__(seconds, where)
        self.seconds, self.where = seconds, where

    def __str__(self) -> str:
        return f"the limit of {self.seconds:g} s was passed {self.where}".rstrip()


@dataclass
class _Deadline:
    at: float  # on the clock of time.monotonic
    seconds: float  # the limit, as its user gave it
    where: str = ""


_current: ContextVar[_Deadline | None] = ContextVar("deadline", default=None)


@contextmanager
def until(at: float, seconds: float) -> Iterator[None]:
    """Let :func:`check` raise after a time; of limits inside one another the earliest holds.

    A generator must not yield within: what is set here would hold for whoever advances it.

    Args:
        at: on the clock of :func:`time.monotonic`.
        seconds: the limit, for the message.
    """
    outer = _current.get()
    if outer is not None and outer.at <= at:
        yield
        return
    token = _current.set(_Deadline(at, seconds))
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Let :func:`check` raise after so many seconds from now."""
    with until(time.monotonic() + seconds, seconds):
        yield


def check() -> None:
    """Raise :class:`TimeUp` if a limit has passed; do nothing where there is none."""
    deadline = _current.get()
    if deadline is not None and time.monotonic() > deadline.at:
        raise TimeUp(deadline.seconds, deadline.where)


def ends_at() -> float | None:
    """Return when the limit passes, on the clock of :func:`time.monotonic`; None: there is none."""
    deadline = _current.get()
    return None if deadline is None else deadline.at


def doing(where: str) -> None:
    """Say what is done from here on, such as "in epoch 2 of 3, step 17", and check."""
    deadline = _current.get()
    if deadline is not None:
        deadline.where = where
        check()


def limited(
    steps: Generator[Y, None, R],
    seconds: float | None,
    *,
    before: Callable[[], float] = lambda: 0.0,
) -> Generator[Y, None, R]:
    """Advance a generator within a limit that runs from its first turn on; None: without one.

    Whoever takes what it yields is not limited, and has no share in what is set. ``before`` is
    asked at every turn how many of the seconds had been spent before the first.
    """
    if seconds is None:
        return (yield from steps)
    at = time.monotonic() + seconds
    try:
        while True:
            try:
                with until(at - before(), seconds):
                    item = next(steps)
            except StopIteration as end:
                found: R = end.value
                return found
            yield item
    finally:
        steps.close()
