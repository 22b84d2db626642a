"""The command ``psinas samplers``."""

from __future__ import annotations

from launch.show.columns import beside
from launch.show.console import say
from nas.samplers.registry import SAMPLERS


def samplers() -> None:
    """List the samplers.

    Example: psinas samplers
    """
    for line in beside({name: ((make.__doc__ or "").strip(),) for name, make in SAMPLERS.items()}):
        say(line)
