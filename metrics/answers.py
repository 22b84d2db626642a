"""What a model answers to images: logits, labels, and gradients of a loss.

An image's row depends on that image alone: losses are summed, never averaged.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def input_gradient(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return d(sum of cross entropies)/d(images): every image's own gradient, not a mean's.

    Of a loss that does not depend on the images it is zero.
    """
    images = images.detach().requires_grad_()
    logits = model(images.clone()).float()  # of a copy, for a model that writes to its input
    return gradient_of(functional.cross_entropy(logits, labels, reduction="sum"), images)


def gradient_of(value: Tensor, at: Tensor) -> Tensor:
    """Return d(value)/d(at), which is zero where value does not depend on it."""
    if not value.requires_grad:
        return torch.zeros_like(at)
    gradient = torch.autograd.grad(value, at, allow_unused=True)[0]
    return torch.zeros_like(at) if gradient is None else gradient


def useless(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``(N,)`` bool twice: gradients that are zero everywhere, and not finite somewhere."""
    flat = gradient.flatten(1)
    return (flat == 0).all(dim=1), (~flat.isfinite()).any(dim=1)


def misclassified(logits: Tensor, labels: Tensor) -> Tensor:
    """Return ``(N,)`` bool: another class is the largest, or a logit is not finite."""
    return (logits.argmax(dim=1) != labels) | ~logits.isfinite().all(dim=1)


def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    """Return float32 logits without a graph; of a copy, for a model that writes to its input."""
    with torch.no_grad():
        logits: Tensor = model(images.clone())
    return logits.float()


def predicted(model: nn.Module, images: Tensor) -> Tensor:
    """Return the labels ``(N,)`` that the model gives."""
    return logits_of(model, images).argmax(dim=1)
