"""The command ``psinas datasets``."""

from __future__ import annotations

from launch.show.console import say
from nas.data.config import DataConfig
from nas.data.datasets import DATASETS, READERS_OF_PATHS
from nas.data.places import data_root


def datasets() -> None:
    """List the datasets, and where their files are looked for.

    Example: psinas datasets
    """
    for name in [*DATASETS, *(f"{kind}:PATH" for kind in READERS_OF_PATHS)]:
        say(name)
    say(f"files in {data_root(DataConfig())} (PSINAS_DATA or data.root)")
