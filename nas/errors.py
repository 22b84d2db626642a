"""What went wrong, as a tree: the command line prints an InputError as one line, and exits 2."""

from __future__ import annotations

import traceback

LONGEST = 300  # characters of a line that somebody else's exception says
LONGEST_TRACE = 100_000  # characters


class PsinasError(Exception):
    """Every error that psinas raises on purpose above the leaves."""


class InputError(PsinasError, ValueError):
    """The user's input: an unknown name, a missing file, a value out of range."""


class NoImages(InputError):
    """A part of a dataset that has no images."""


class NoStudy(InputError):
    """A ledger that is not there."""


class NoWinner(InputError):
    """A search that has ended without a trial that completed."""


class Diverged(PsinasError, ArithmeticError):
    """Training or scoring gave a number that is not finite."""


class LedgerLost(PsinasError):
    """A ledger that was there, and cannot be reached or has lost what it held."""


class WorkerFailure(PsinasError):
    """Workers cannot run trials at all, whatever the architecture."""


class DeviceFault(PsinasError):
    """The device failed, not the trial: this process can do nothing more on it."""


class ProcessLost(PsinasError):
    """One of the processes that train a trial has failed, or is gone.

    Attributes:
        status: that its trial has; ``device`` where its device failed.
        reason: why.
        trace: of what it raised.
    """

    def __init__(self, status: str, reason: str, trace: str = "") -> None:
        super().__init__(status, reason, trace)
        self.status, self.reason, self.trace = status, reason, trace

    def __str__(self) -> str:
        return self.reason


class SamplerFailure(PsinasError):
    """A sampler of the user's raised, or proposed what is no choice."""


class DiskFull(PsinasError):
    """No room was left to write what a search has found."""


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says that is not empty; the system's own words."""
    return _line(getattr(error, "strerror", None) or said(error))


def one_line(error: BaseException) -> str:
    """Return an error's kind and its first line."""
    line = _line(said(error))
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def whole_line(error: BaseException) -> str:
    """Return an error's kind and all that it says, in one line: for errors of our own."""
    text = " ".join(said(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def said(error: BaseException) -> str:
    """Return what an error says, as text that any file can hold; nothing of one that cannot say."""
    try:
        return writable(str(error))
    except Exception:  # noqa: BLE001  anybody's exception: its text is code too
        return ""


def handled_trace() -> str:
    """Return the traceback of what is being handled, as text that a file can hold."""
    try:
        text = writable(traceback.format_exc())
    except Exception:  # noqa: BLE001  anybody's exception: its text is code too
        return "the exception cannot be printed\n"
    most = LONGEST_TRACE // 2
    return text if len(text) <= LONGEST_TRACE else f"{text[:most]}\n...\n{text[-most:]}"


def writable(text: str) -> str:
    """Return text that UTF-8 can encode: half of a surrogate pair is written out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _line(text: object) -> str:
    line = next((line.strip() for line in str(text).split("\n") if line.strip()), "")
    return cut(line)


def cut(line: str) -> str:
    """Return a line that a person can read: no longer than ``LONGEST``."""
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."
