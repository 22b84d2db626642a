"""Which device numbers are computed on: the one place that chooses."""

from __future__ import annotations

import torch


def choose_device(gpu: bool = True) -> str:
    """Return ``cuda`` where a GPU is wanted and there, else ``cpu``."""
    return "cuda" if gpu and torch.cuda.is_available() else "cpu"


def usable_gpus() -> tuple[list[str], list[int]]:
    """Return the names of the GPUs that torch can use here, and the bytes of their memory."""
    number = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = [torch.cuda.get_device_properties(index) for index in range(number)]
    return [gpu.name for gpu in found], [gpu.total_memory for gpu in found]


def why_no_gpu() -> str:
    """Return why torch can use no GPU here; nothing where it can use one."""
    if torch.cuda.is_available():
        return ""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:  # the latter where torch was built without
        return str(error).strip().split("\n")[0].partition(". ")[0]
    return "it sees no GPU"
