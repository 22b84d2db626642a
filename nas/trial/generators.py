"""The global generators of random numbers: a training that goes on draws on from where it was."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def drawn(device: torch.device) -> dict[str, Any]:
    """Return the states of the global generators, from which dropout and anybody's layers draw."""
    return {
        "torch": [generator.get_state() for generator in global_generators(device)],
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),  # noqa: NPY002  the global one is meant
    }


def draw_on(states: Mapping[str, Any], device: torch.device) -> None:
    """Let the global generators go on from what :func:`drawn` gave."""
    for generator, state in zip(global_generators(device), states["torch"], strict=True):
        generator.set_state(state)
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])  # noqa: NPY002  the global one is meant


def global_generators(device: torch.device) -> list[torch.Generator]:
    """Return those that layers such as dropout draw from on ``device``, which has an index."""
    on_gpu = [torch.cuda.default_generators[device.index]] if device.type == "cuda" else []
    return [torch.default_generator, *on_gpu]
