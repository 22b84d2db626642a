"""Files that a command writes where ``--out`` says: never over a part of a run or an export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nas.errors import InputError
from nas.files import write_whole

PARTS = frozenset(
    "config.yaml study.journal driver.lock driver.pid architecture.json model.safetensors "
    "weights.safetensors last.safetensors table1.json".split()
)
"""Names of files in runs and exports that nothing else makes again."""


def check_file(out: Path) -> None:
    """Refuse a file that cannot be written, or that is a part of a run or an export.

    Raises:
        InputError: such a file, or a directory.
    """
    if out.is_dir():
        raise InputError(f"--out: expected a file to write, got the directory {out}")
    if out.exists() and out.name in PARTS:
        raise InputError(f"--out: expected a file of its own, got {out}, a part of a run")


def write_file(out: Path, write: Callable[[Path], object]) -> None:
    """Write a file, whole or not at all.

    Raises:
        InputError: as of :func:`check_file`, or it cannot be written.
    """
    check_file(out)
    place = out.resolve()  # a link stays one
    try:
        if place.exists() and not place.is_file():
            write(place)  # a pipe, or /dev/stdout
        else:
            write_whole(place, write)
    except OSError as error:
        raise InputError(f"--out: expected a file to write, got {out}: {error}") from error
