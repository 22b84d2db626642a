"""Paths as a person at a terminal sees them."""

from __future__ import annotations

import os


def seen_from_here(path: str) -> str:
    """Return an absolute path as one from the current directory, where it lies in that."""
    try:
        here = os.path.relpath(path)
    except (OSError, ValueError):  # another drive, or a directory that is gone
        return path
    return path if here.startswith(os.pardir) else here
