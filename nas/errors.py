"""What went wrong, as a tree: the command line prints an InputError as one line, and exits 2."""

from __future__ import annotations


class PsinasError(Exception):
    """Every error that psinas raises on purpose above the leaves."""


class InputError(PsinasError, ValueError):
    """The user's input: an unknown name, a missing file, a value out of range."""


class NoStudy(InputError):
    """A ledger that is not there."""


class NoWinner(InputError):
    """A search that has ended without a trial that completed."""


class Diverged(PsinasError, ArithmeticError):
    """Training or scoring gave a number that is not finite."""


class WorkerFailure(PsinasError):
    """Workers cannot run trials at all, whatever the architecture."""


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says that is not empty; the system's own words."""
    text = getattr(error, "strerror", None) or str(error)
    return next((line.strip() for line in str(text).splitlines() if line.strip()), "")


def one_line(error: BaseException) -> str:
    """Return an error's kind and its first line."""
    line = next((text.strip() for text in str(error).splitlines() if text.strip()), "")
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
