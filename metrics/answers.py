"""What a model answers to images: logits, labels, and gradients of a loss.

An image's row depends on that image alone: losses are summed, never averaged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from metrics.checks import check_logits, refuses
from metrics.deadline import check
from metrics.precision import widened

SPREAD = 8.0  # of the logits that a loss sees


def answer(model: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return logits ``(N, classes)``, in float32 at least; of a copy, which a model may write to.

    Raises:
        ValueError: a model that returns something else.
    """
    logits = widened(check_logits(outputs_of(model, images), len(images)))
    return logits if logits.requires_grad else logits.clone()  # a model may return one for all


def outputs_of(model: Callable[[Tensor], Any], images: Tensor) -> Any:
    """Return what ``model`` answers to a copy of ``images``.

    Raises:
        ValueError: images of a type, device or shape that the model does not take.
        TimeUp: a limit has passed (:mod:`metrics.deadline`).
    """
    check()
    try:
        return model(images.clone())
    except (RuntimeError, NotImplementedError) as error:
        if isinstance(model, nn.Module) and (reason := refuses(model, images, error)):
            raise ValueError(reason) from error
        raise


def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    """Return :func:`answer` without a graph."""
    with torch.no_grad():
        return answer(model, images)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return ``(N,)``: the label's logit minus the largest other."""
    own = logits.gather(1, labels[:, None]).squeeze(1)
    return own - logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)


def margin_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return ``(N,)``: log-sum-exp of the other logits, minus the label's.

    The cross entropy is its softplus, so the two are large for the same images and their gradients
    have one direction. But float32 rounds the probability of a label that leads by 17 to 1, and
    its part of the cross entropy's gradient to 0; this one never saturates.
    """
    own = logits.gather(1, labels[:, None]).squeeze(1)
    return logits.scatter(1, labels[:, None], -torch.inf).logsumexp(dim=1) - own


def temperatures(logits: Tensor) -> Tensor:
    """Return ``(N, 1)``: what logits are divided by before a loss is taken of them, at least 1.

    A gradient over all other classes finds more than one that sees the largest alone, which is what
    large logits make of it. So their standard deviation over the classes is kept at ``SPREAD`` or
    below, which honest nets rarely exceed: what an attack finds does not depend on their scale.
    """
    finite = logits.isfinite()
    count = finite.sum(dim=1, keepdim=True).clamp_min(1)
    mean = logits.where(finite, 0).sum(dim=1, keepdim=True) / count
    apart = (logits - mean).where(finite, 0)
    largest = apart.abs().amax(dim=1, keepdim=True)
    share = apart / largest.where(largest > 0, 1)
    spread = largest * (share.square().sum(dim=1, keepdim=True) / count).sqrt()
    return (spread / SPREAD).clamp_min(1).detach()


def input_gradient(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return d(sum of margin losses)/d(images): every image's own gradient, not a mean's.

    Of a loss that does not depend on the images it is zero.
    """
    images = images.detach().requires_grad_()
    logits = answer(model, images)
    return gradient_of(margin_loss(logits / temperatures(logits), labels).sum(), images)


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
    """Return ``(N,)`` bool: another class is the largest, or a logit says nothing.

    That is one that is NaN or infinite; minus infinity is the logit of a class that cannot be.
    """
    return (logits.argmax(dim=1) != labels) | silent(logits)


def silent(logits: Tensor) -> Tensor:
    """Return ``(N,)`` bool: a logit is NaN or infinite, or every one is minus infinity."""
    return logits.isnan().any(dim=1) | ~logits.amax(dim=1).isfinite()


def predicted(model: nn.Module, images: Tensor) -> Tensor:
    """Return the labels ``(N,)`` that the model gives."""
    return logits_of(model, images).argmax(dim=1)
