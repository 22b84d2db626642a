"""Files that are there whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write through a neighbour and rename, so that a kill leaves the old file or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    write(partial)
    partial.replace(path)
