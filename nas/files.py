"""Files that are there whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_whole(path: Path, write: Callable[[Path], object], *, durable: bool = False) -> None:
    """Write through a neighbour and rename, so that a kill leaves the old file or the new one.

    ``durable``: neither does a machine that loses its power leave a part of one.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        write(partial)
        if durable:
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:  # a full disk has no room for what is left of it
        partial.unlink(missing_ok=True)
        raise


def read_kept(path: Path, key: str) -> dict[str, Any] | None:
    """Return the JSON object kept under ``key``; None of another key, or where there is none."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return kept if isinstance(kept, dict) and kept.get("key") == key else None
