"""Robust accuracy over epsilon, by one attack, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from launch.config.metrics import metric_settings, the_attack
from metrics.robustness.accuracy import wilson
from metrics.robustness.curves import accuracy_curve
from metrics.robustness.scores import AttackAccuracy
from nas.errors import InputError

ATTACK = "apgd"


def read_epsilons(text: str) -> list[float]:
    """Return the epsilons of ``1/255,2/255,0.1``, ascending.

    Raises:
        InputError: something else, or one twice.
    """
    try:
        found = sorted(_number(part) for part in text.split(","))
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(
            f"--curve: expected epsilons such as 1/255,2/255,4/255, got {text!r}"
        ) from error
    if len(set(found)) < len(found):
        raise InputError(f"--curve: expected distinct epsilons, got {text!r}")
    return found


def curve_over(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    entry: Any,
    epsilons: Sequence[float],
    seed: int,
) -> dict[str, Any]:
    """Return a curve as JSON types: the attack, and lists with one value for each epsilon.

    Args:
        model, images, labels: as of :func:`accuracy_curve`.
        entry: the attack as a configuration names it; its epsilon is replaced.
        epsilons: ascending, in the attack's norm.
        seed: of random starts.

    Raises:
        InputError: no such attack, or epsilons that it does not take.
    """
    attack = the_attack(entry, "--attack")
    generator = torch.Generator(images.device).manual_seed(seed)
    try:
        found = accuracy_curve(model, images, labels, attack, epsilons, generator=generator)
    except ValueError as error:
        raise InputError(f"--curve: {error}") from error
    ends = [wilson(share, len(labels)) for share in found.accuracies]
    settings = metric_settings(entry, AttackAccuracy(attack=attack))
    del settings["epsilon"], settings["limit"]
    return {
        "attack": {**settings, "norm": attack.distance},
        "epsilons": list(found.epsilons),
        "accuracies": list(found.accuracies),
        "low": [low for low, _ in ends],
        "high": [high for _, high in ends],
        "images": len(labels),
        "zero_gradients": found.zero_gradients / len(labels),
        "nonfinite_gradients": found.nonfinite_gradients / len(labels),
    }


def _number(text: str) -> float:
    above, slash, below = text.strip().partition("/")
    return float(above) / float(below) if slash else float(above)
