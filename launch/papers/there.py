"""The view of a reproduction on a worker of a cluster, where the GPU is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from launch.papers.registry import reproduction
from launch.runs.run import Run
from launch.show.reporter import Reporter
from launch.show.view import View


def view_there(
    name: str, paths: Sequence[Path], *, device: str, threads: int, say: Callable[[str], None]
) -> View:
    """Return what a reproduction makes of its runs, telling ``say`` of it.

    Args:
        name: of the reproduction.
        paths: of its run directories, on storage that the worker sees.
        device: that the worker was given; a GPU is found by the view itself.
        threads: of torch on the CPU.
        say: is told what the view reports while it is made.
    """
    torch.set_num_threads(threads)
    return reproduction(name).view([Run(path) for path in paths], Reporter(say=say))
