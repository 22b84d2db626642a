"""Logit differences: how far the largest logit leads the others.

Δ_1j is the largest logit minus the j-th largest. Cubuk et al. 2017 (*Intriguing Properties of
Adversarial Examples*, arXiv 1711.02846) find its density to grow like Δ^(j-2) at small Δ, for
networks as for random logits (:mod:`metrics.universality.random_logits`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metrics.answers import logits_of, silent
from metrics.checks import check_batch_size, check_images, check_model
from metrics.engine.memory import in_batches, suitable_batch
from metrics.left_as_found import evaluating
from metrics.precision import full_float32


def logit_differences(model: nn.Module, images: Tensor, *, batch_size: int | None = None) -> Tensor:
    """Return ``(N, classes - 1)`` float64: Δ_12 ... Δ_1C of each image, ascending.

    A class whose logit is minus infinity cannot be: its difference is infinite. An image with a
    logit that is NaN or plus infinity, or all of whose logits are minus infinity, has no answer:
    its differences are NaN.

    Args:
        model: images in [0, 1] to logits; left as found.
        images: ``(N, C, H, W)`` float in [0, 1].
        batch_size: images at a time; None is what suits the device.

    Raises:
        ValueError: images or a model that cannot be looked at.
    """
    check_model(model)
    batch_size = check_batch_size(batch_size)
    images = check_images(images)
    with full_float32(), torch.inference_mode(False), evaluating(model):
        size = batch_size or suitable_batch(model, images)

        def look(part: slice) -> Tensor:
            return differences_of(logits_of(model, images[part]))

        return torch.cat([found for _, found, _ in in_batches(len(images), size, look)])


def differences_of(logits: Tensor) -> Tensor:
    """Return ``(N, classes - 1)`` float64, as :func:`logit_differences`, of logits."""
    ranked = logits.double().sort(dim=1, descending=True).values
    return (ranked[:, :1] - ranked[:, 1:]).masked_fill(silent(logits)[:, None], torch.nan)
