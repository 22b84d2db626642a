"""Clean and robust accuracy, with the standard error that a finite sample leaves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metrics.attacks import Attack, evaluating, input_gradient, logits_of

BATCH_SIZE = 500


@dataclass(frozen=True)
class AttackResult:
    """What an attack left standing.

    Attributes:
        accuracy: share of images that are classified right without and with the attack.
        stderr: its standard error, sqrt(p (1 - p) / N).
        robust: ``(N,)`` bool, the images that stayed right.
        zero_gradients: images, right when clean, whose loss gradient is zero everywhere: such an
            image looks robust to every gradient attack.
        nonfinite_gradients: the same with a NaN or infinite gradient (the sign of NaN is 0).
    """

    accuracy: float
    stderr: float
    robust: Tensor
    zero_gradients: int
    nonfinite_gradients: int


def standard_error(share: float, n: int) -> float:
    """Return the binomial standard error of a share of ``n``: sqrt(p (1 - p) / n)."""
    return math.sqrt(share * (1 - share) / n)


def correct(
    model: nn.Module, images: Tensor, labels: Tensor, *, batch_size: int = BATCH_SIZE
) -> Tensor:
    """Return ``(N,)`` bool: which images the model, in ``eval()`` mode, gets right.

    A model that answers NaN or infinity gets none of those images right.
    """
    _check_sizes(images, labels)
    with evaluating(model):
        batches = zip(images.split(batch_size), labels.split(batch_size), strict=True)
        return torch.cat([_right(logits_of(model, x), y) for x, y in batches])


def robust_accuracy(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: Attack,
    *,
    generator: torch.Generator | None = None,
    batch_size: int = BATCH_SIZE,
) -> AttackResult:
    """Return the accuracy under ``attack`` (last iterate), over all ``N`` images.

    Images that are wrong already are counted as not robust and are not attacked.

    Args:
        model: images in [0, 1] to logits; left as found.
        images: ``(N, C, H, W)`` float in [0, 1].
        labels: ``(N,)`` true labels.
        attack: any attack value.
        generator: decides the attack's random starts.
        batch_size: images at a time.

    Raises:
        ValueError: no images, or as many labels as images are not given.
    """
    robust = correct(model, images, labels, batch_size=batch_size)
    zero = nonfinite = 0
    right = robust.nonzero().squeeze(1)
    for indices in right.split(batch_size) if len(right) else ():
        x, y = images[indices], labels[indices]
        with torch.inference_mode(False), torch.enable_grad(), evaluating(model):
            gradient = input_gradient(model, x.clone(), y.clone()).flatten(1)
        zero += int((gradient == 0).all(dim=1).sum())
        nonfinite += int((~gradient.isfinite()).any(dim=1).sum())
        adversarial = attack(model, x, y, generator=generator)
        robust[indices] = correct(model, adversarial, y, batch_size=batch_size)
    accuracy = robust.double().mean().item()
    return AttackResult(accuracy, standard_error(accuracy, len(labels)), robust, zero, nonfinite)


def _right(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(dim=1) == labels) & logits.isfinite().all(dim=1)


def _check_sizes(images: Tensor, labels: Tensor) -> None:
    if len(images) != len(labels) or len(labels) == 0:
        raise ValueError(
            f"expected one label for each of at least one image, "
            f"got {len(images)} images and {len(labels)} labels"
        )
