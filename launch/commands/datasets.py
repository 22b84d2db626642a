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
    say(
        "folder:PATH holds a directory of images a class, or train/, val/ and test/ with those; "
        "each image is resized and its centre cut out (data.image_size, 64), in 3 channels"
    )
    say(
        "  val/ beside test/ are the validation images; without test/, val/ are the test images; "
        "without both, every fifth image of a class is one"
    )
    say(f"files in {data_root(DataConfig())} (PSINAS_DATA or data.root)")
