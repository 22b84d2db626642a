"""Which device numbers are computed on: the one place that chooses."""

from __future__ import annotations

import torch


def choose_device(gpu: bool = True) -> str:
    """Return ``cuda`` where a GPU is wanted and there, else ``cpu``."""
    return "cuda" if gpu and torch.cuda.is_available() else "cpu"
