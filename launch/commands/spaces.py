"""The command ``psinas spaces``."""

from __future__ import annotations

from dataclasses import fields

from launch.show.columns import beside
from launch.show.console import say
from search_spaces import SEARCH_SPACES


def spaces() -> None:
    """List the search spaces and their settings.

    Example: psinas spaces
    """
    rows = {}
    for name, space in SEARCH_SPACES.items():
        settings = ", ".join(f"{f.name}={f.default!r}" for f in fields(space))
        about = (space.__doc__ or "").strip().partition("\n")[0]
        rows[name] = (f"{about} ({settings})",)
    for line in beside(rows):
        say(line)
