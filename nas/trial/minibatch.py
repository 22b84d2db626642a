"""One minibatch: its adversarial images, its loss and the gradient of that, also in parts.

The attack and the augmentation of a batch are those of the whole batch, however many images go
through the model at a time: random starts belong to images, and the loss is a mean over the batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from metrics.attacks import Attack
from nas.trial.adversary import Adversary
from nas.trial.group import Part
from nas.trial.objective import mean_loss, passes
from nas.trial.precision import training_precision
from nas.trial.recipe import Recipe
from nas.trial.weight_perturbation import buffers_as_found, perturbed


def autocast(recipe: Recipe, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context in which the model runs."""
    enabled = training_precision(recipe, device) == "bf16"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def gradients(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    recipe: Recipe,
    attack: Attack | Adversary | None,
    generator: torch.Generator,
    micro_batch: int | None,
    part: Part | None = None,
    *,
    perturb: bool = False,
) -> Tensor:
    """Set ``.grad`` to the gradient of :func:`batch_loss`, and return that loss, detached.

    With ``micro_batch`` so many images at a time are attacked, and go forwards and backwards; the
    gradient is the sum over them, each image counting the same. Of a ``part`` of a batch, which
    ``x`` and ``y`` then are, loss and gradient are its share of the batch's: its mean over images
    times that share. With ``perturb`` loss and gradient are those at weights that
    :mod:`nas.trial.weight_perturbation` has moved; they are back after.
    """
    model.zero_grad(set_to_none=True)  # before the attack, which would keep copies of them
    adversarial = _adversarial(model, x, y, recipe, attack, generator, micro_batch, part)
    of = len(x) if part is None else part.of
    if not perturb:
        return _backward(model, x, adversarial, y, recipe, micro_batch, of)
    with buffers_as_found(model):
        _backward(model, x, adversarial, y, recipe, micro_batch, of)
    with perturbed(model, recipe.awp):
        return _backward(model, x, adversarial, y, recipe, micro_batch, of)


def batch_loss(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    recipe: Recipe,
    attack: Attack | Adversary | None,
    generator: torch.Generator,
) -> Tensor:
    """Return the loss of one minibatch, its first part attacked."""
    adversarial = _adversarial(model, x, y, recipe, attack, generator)
    return _mean_loss(model, x, adversarial, y, recipe)


def _adversarial(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    recipe: Recipe,
    attack: Attack | Adversary | None,
    generator: torch.Generator,
    micro_batch: int | None = None,
    part: Part | None = None,
) -> Tensor:
    """Return adversarial images of the first of a batch, made so many at a time."""
    first = round(recipe.attacked_share * (len(x) if part is None else part.of))
    if attack is None or not first:
        return x[:0]
    attacked = first if part is None else len(part.among(first))
    labels = None if attack.leaks_labels else y[:attacked]
    with autocast(recipe, x.device):
        if part is None:
            return attack(model, x[:attacked], labels, generator=generator, batch_size=micro_batch)
        return part.attacked(
            attack, model, x[:attacked], labels, first, generator=generator, batch_size=micro_batch
        )


def _backward(
    model: nn.Module,
    x: Tensor,
    adversarial: Tensor,
    y: Tensor,
    recipe: Recipe,
    micro_batch: int | None,
    of: int,
) -> Tensor:
    """Add to ``.grad`` the gradient of a loss, detached, that is returned: a share of ``of``."""
    if len(x) == of and (micro_batch is None or micro_batch >= len(x)):
        loss = _mean_loss(model, x, adversarial, y, recipe)
        loss.backward()
        return loss.detach()
    total = torch.zeros((), device=x.device)
    if not len(x):
        return total
    parts = math.ceil(len(x) / (micro_batch or len(x)))  # equal ones: see batch norm of one image
    for part, attacked, labels in _parts(x, adversarial, y, parts):
        loss = _mean_loss(model, part, attacked, labels, recipe) * (len(part) / of)
        loss.backward()
        total += loss.detach()
    return total


def _parts(
    x: Tensor, adversarial: Tensor, y: Tensor, parts: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield images, the adversarial ones of the first of them, and labels."""
    begin = 0
    for part, labels in zip(x.tensor_split(parts), y.tensor_split(parts), strict=True):
        yield part, adversarial[begin : begin + len(part)], labels
        begin += len(part)


def _mean_loss(
    model: nn.Module, x: Tensor, adversarial: Tensor, y: Tensor, recipe: Recipe
) -> Tensor:
    """Return the loss of these images, a mean over them."""
    with autocast(recipe, x.device):
        logits = [model(images).float() for images in passes(x, adversarial, recipe)]
    return mean_loss(logits[0] if len(logits) == 1 else torch.cat(logits), y, recipe)
