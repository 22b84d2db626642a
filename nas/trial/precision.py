"""Which precision a model is trained in: bfloat16 where it is fast, or where it is asked for.

Evaluations, judging and metrics are in full float32 whatever a recipe says (metrics.precision).
"""

from __future__ import annotations

import torch

from nas.device import fast_bf16
from nas.trial.recipe import Recipe


def training_precision(recipe: Recipe, device: torch.device) -> str:
    """Return ``bf16`` (autocast; weights and logits stay in float32) or ``float32``.

    ``auto`` is bf16 on a card that computes it natively; on a CPU it is float32.
    """
    if recipe.precision == "auto":
        return "bf16" if device.type == "cuda" and fast_bf16(device) else "float32"
    return recipe.precision


def check_precision(recipe: Recipe, device: torch.device) -> None:
    """Raise ValueError for bf16 on a card that has none.

    It could be emulated, more slowly than float32, and float32 in its place would be another
    training under the same hash; ``auto`` is what takes what the card has.
    """
    if recipe.precision == "bf16" and device.type == "cuda" and not fast_bf16(device):
        raise ValueError(
            f"precision: expected auto or float32 on {torch.cuda.get_device_name(device)}, which "
            "has no bf16 of its own, got bf16"
        )
