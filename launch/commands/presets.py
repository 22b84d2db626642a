"""The command ``psinas presets``."""

from __future__ import annotations

from launch.config.documents import preset_about, preset_names
from launch.show.columns import beside
from launch.show.console import say


def presets() -> None:
    """List the presets.

    Example: psinas presets
    """
    for line in beside({name: (preset_about(name),) for name in preset_names()}):
        say(line)
