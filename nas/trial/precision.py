"""Which precision a model is trained in: bfloat16 where it is fast, or where it is asked for.

Evaluations, judging and metrics are in full float32 whatever a recipe says (metrics.precision).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metrics.left_as_found import evaluating
from nas.device import fast_bf16
from nas.trial.recipe import Recipe

LEAST_INTENSITY = 10.0  # multiply-accumulates a value, see intensity()


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


def attack_precision(recipe: Recipe, model: nn.Module, images: Tensor) -> str:
    """Return ``bf16`` or ``float32``: what the training attack's fast copy computes in.

    ``auto`` is bf16 where the model trains in it, and on a CPU whose bf16 is fast for models of
    enough arithmetic (:func:`intensity`): elsewhere what surrounds the convolutions takes longer.
    """
    device = images.device
    if recipe.attack_precision != "auto":
        return recipe.attack_precision
    if training_precision(recipe, device) == "bf16":
        return "bf16"
    on_cpu = device.type == "cpu" and recipe.precision == "auto" and fast_bf16(device)
    return "bf16" if on_cpu and intensity(model, images[:1]) >= LEAST_INTENSITY else "float32"


def intensity(model: nn.Module, images: Tensor) -> float:
    """Return multiply-accumulates of dense convolutions and linear layers for each value made.

    Values are those that modules without parts return.
    """
    work = values = 0

    def count(module: nn.Module, inputs: object, output: object) -> None:
        nonlocal work, values
        if not isinstance(output, Tensor):
            return
        values += output.numel()
        if isinstance(module, nn.Linear):
            work += output.numel() * module.in_features
        elif isinstance(module, nn.Conv2d) and module.groups == 1:
            work += output.numel() * module.weight[0].numel()

    leaves = [module for module in model.modules() if not list(module.children())]
    handles = [leaf.register_forward_hook(count) for leaf in leaves]
    try:
        with evaluating(model), torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return work / max(values, 1)
