"""The room that a run takes on disk, told; and a disk without any, told in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nas.disk import disk_is_full, free_on, shown_size, use_of
from nas.errors import DiskFull, InputError, first_line

LOOK_SECONDS = 1.0  # a shared disk may take longer to answer for 10,000 trials


def room_line(run: Path) -> str:
    """Return what a run directory takes and what is free beside it, as far as a second tells."""
    use = use_of(run, seconds=LOOK_SECONDS)
    least = "" if use.whole else "at least "
    return (
        f"disk: {run} takes {least}{shown_size(use.total)}, {shown_size(use.weights)} of it "
        f"weights; {shown_size(free_on(run))} are free"
    )


@contextmanager
def told_when_full(run: Path, again: str) -> Iterator[None]:
    """Say in one line that there was no room for a run, whoever wrote and however it was told.

    Args:
        run: the run directory.
        again: the command that goes on.

    Raises:
        DiskFull: something within raised that a file system is full, or a quota.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if not disk_is_full(error):
            raise
        raise DiskFull(
            f"no room is left for {run} (its file system or a quota is full): {first_line(error)}; "
            f"what had ended is kept: make room, then go on with: {again}"
        ) from error
