"""What of the machine a trial's row keeps: what its numbers depend on, and the memory it took."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
import torch

from nas.device import fast_bf16
from nas.trial.precision import training_precision
from nas.trial.recipe import Recipe


def environment_of(device: torch.device, recipe: Recipe) -> dict[str, Any]:
    """Return versions, device, threads and the precision of training there, as JSON types."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "device": device.type,
        "device_name": name,
        "threads": torch.get_num_threads(),
        "fast_bf16": fast_bf16(device),
        "training_precision": training_precision(recipe, device),
    }


def peak_memory(device: torch.device) -> int | None:
    """Return the most bytes that torch has held on a GPU since the trial began; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
