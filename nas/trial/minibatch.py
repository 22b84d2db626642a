"""One minibatch: its adversarial images, its loss and the gradient of that, also in parts.

The attack and the augmentation of a batch are those of the whole batch, however many images go
through the model at a time: random starts belong to images, and the loss is a mean over the batch.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from metrics.attacks import Attack
from nas.trial.precision import training_precision
from nas.trial.recipe import Recipe


def autocast(recipe: Recipe, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context in which the model runs."""
    enabled = training_precision(recipe, device) == "bf16"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def gradients(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    recipe: Recipe,
    attack: Attack | None,
    generator: torch.Generator,
    micro_batch: int | None,
) -> Tensor:
    """Set ``.grad`` to the gradient of :func:`batch_loss`, and return that loss, detached.

    With ``micro_batch`` so many images at a time are attacked, and go forwards and backwards; the
    gradient is the sum over them, each image counting the same.
    """
    model.zero_grad(set_to_none=True)  # before the attack, which would keep copies of them
    if micro_batch is None or micro_batch >= len(x):
        loss = batch_loss(model, x, y, recipe, attack, generator)
        loss.backward()
        return loss.detach()
    x = _with_adversarial(model, x, y, recipe, attack, generator, micro_batch)
    parts = math.ceil(len(x) / micro_batch)  # equal ones: batch norm has no variance of one image
    total = torch.zeros((), device=x.device)
    for part, labels in zip(x.tensor_split(parts), y.tensor_split(parts), strict=True):
        loss = _mean_loss(model, part, labels, recipe) * (len(part) / len(x))
        loss.backward()
        total += loss.detach()
    return total


def batch_loss(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    recipe: Recipe,
    attack: Attack | None,
    generator: torch.Generator,
) -> Tensor:
    """Return the loss of one minibatch, its first part made adversarial."""
    x = _with_adversarial(model, x, y, recipe, attack, generator)
    return _mean_loss(model, x, y, recipe)


def _with_adversarial(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    recipe: Recipe,
    attack: Attack | None,
    generator: torch.Generator,
    micro_batch: int | None = None,
) -> Tensor:
    """Return the images of a batch, the first of them made adversarial, so many at a time."""
    attacked = round(recipe.adversarial_share * len(x)) if attack is not None else 0
    if attack is None or not attacked:
        return x
    labels = None if attack.leaks_labels else y[:attacked]
    with autocast(recipe, x.device):
        adversarial = attack(
            model, x[:attacked], labels, generator=generator, batch_size=micro_batch
        )
    return torch.cat([adversarial, x[attacked:]])


def _mean_loss(model: nn.Module, x: Tensor, y: Tensor, recipe: Recipe) -> Tensor:
    """Return the loss of these images, a mean over them."""
    with autocast(recipe, x.device):
        logits = model(x).float()
    loss = _loss(logits, y, recipe)
    if recipe.entropy_weight:
        log_p = logits.log_softmax(dim=1)
        loss = loss - recipe.entropy_weight * (log_p.exp() * log_p).sum(dim=1).mean()
    return loss


def _loss(logits: Tensor, y: Tensor, recipe: Recipe) -> Tensor:
    if recipe.loss == "mse":
        wanted = functional.one_hot(y, logits.shape[1])
        return (logits.softmax(dim=1) - wanted).square().mean()
    return functional.cross_entropy(logits, y, label_smoothing=recipe.label_smoothing)
