"""The command ``psinas reproductions``."""

from __future__ import annotations

from launch.papers.registry import REPRODUCTIONS
from launch.show.columns import beside
from launch.show.console import say


def reproductions() -> None:
    """List the tables and figures of papers that can be reproduced.

    Example: psinas reproductions
    """
    for line in beside({name: (found.about,) for name, found in REPRODUCTIONS.items()}):
        say(line)
