"""Orderly stops: what ends a process politely ends a search as Ctrl-C does.

Batch systems send SIGTERM before they kill (scancel, kubectl, timeout), a terminal that closes
sends SIGHUP. Ray would answer the first with a stack trace and an abort.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

POLITE = [
    number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None
]  # Windows has no SIGHUP
INTERRUPTED = 130
_stopped_by: list[int] = []


def heed_stops() -> None:
    """Answer SIGTERM and SIGHUP as Ctrl-C; again, where a library has taken them away.

    A signal that is ignored, as under nohup, stays so.
    """
    if threading.current_thread() is threading.main_thread():
        for number in POLITE:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _stop)


@contextmanager
def orderly_stops() -> Iterator[None]:
    """Heed polite signals within; who had them gets them back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    found = {number: signal.getsignal(number) for number in POLITE}
    _stopped_by.clear()
    heed_stops()
    try:
        yield
    finally:
        for number, handler in found.items():
            signal.signal(number, handler)


def no_more_stops() -> None:
    """Ignore further signals: this process is ending, and a second Ctrl-C would cut that short."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, *POLITE):
            signal.signal(number, signal.SIG_IGN)


def stopping() -> bool:
    """Whether a polite signal has come."""
    return bool(_stopped_by)


def exit_code() -> int:
    """Return what a process that was stopped exits with: 128 and the signal's number."""
    return 128 + _stopped_by[0] if _stopped_by else INTERRUPTED


def _stop(number: int, frame: Any) -> None:
    _stopped_by.append(number)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a script's `psinas ... &`
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.raise_signal(signal.SIGINT)
