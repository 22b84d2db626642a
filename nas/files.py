"""Files that are there whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write through a neighbour and rename, so that a kill leaves the old file or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    write(partial)
    partial.replace(path)


def read_kept(path: Path, key: str) -> dict[str, Any] | None:
    """Return the JSON object kept under ``key``; None of another key, or where there is none."""
    try:
        kept = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return kept if isinstance(kept, dict) and kept.get("key") == key else None
