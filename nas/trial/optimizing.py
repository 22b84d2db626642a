"""The optimizer of a recipe, its learning rate at every step, and the gradient of a step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nas.trial.recipe import Recipe


def optimizer_of(model: nn.Module, recipe: Recipe) -> Optimizer:
    """Return the recipe's optimizer of all parameters of ``model``."""
    settings: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            model.parameters(), momentum=recipe.momentum, nesterov=recipe.momentum > 0, **settings
        )
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(model.parameters(), **settings)


def steps_of_epoch(images: int, recipe: Recipe) -> int:
    """Return the optimizer steps of an epoch of so many images, the last of which may be short."""
    return math.ceil(math.ceil(images / recipe.batch_size) / recipe.accumulate)


def learning_rate(recipe: Recipe, step: int, steps_an_epoch: int) -> float:
    """Return the learning rate of a step, of which the first is 0.

    While it warms up over ``w`` steps, step ``i`` has ``(i + 1) / w`` of what the schedule gives
    at ``w`` (Goyal et al. 2017, section 2.2; He et al. 2019, section 3.1).
    """
    total = max(1, recipe.epochs * steps_an_epoch)
    warm = recipe.warmup_epochs * steps_an_epoch
    climbed = min(1.0, (step + 1) / warm) if warm else 1.0
    return recipe.learning_rate * climbed * _share(recipe, max(step, warm), warm, total)


def _share(recipe: Recipe, step: float, warm: float, total: int) -> float:
    """Return the part of the largest rate that is left at ``step`` of ``total``."""
    done = min(step / total, 1.0)
    if recipe.schedule == "one-cycle":
        up = max(1, total // 4)
        return (step + 1) / up if step < up else (total - step) / (total - up + 1)
    if recipe.schedule == "cosine":
        fallen = min((step - warm) / (total - warm), 1.0)
        return 0.5 * (1 + math.cos(math.pi * fallen))
    if recipe.schedule == "halving":
        return float(0.5 ** (5 * step // total))
    if recipe.schedule == "step":
        return float(0.1 ** sum(done >= milestone for milestone in recipe.milestones))
    return 1.0


class Accumulation:
    """The mean gradient over the images of several minibatches, for one optimizer step.

    The sums live from one minibatch to the next, so that a minibatch is free to clear ``.grad``.

    Args:
        model: whose gradients.
        minibatches: of a step; of one its gradient stays as it is.
    """

    def __init__(self, model: nn.Module, minibatches: int) -> None:
        self._parameters = list(model.parameters())
        self._minibatches = minibatches
        self._sums: list[Tensor | None] = [None] * len(self._parameters)
        self._taken = self._images = 0

    def step_due(self, images: int, *, last: bool) -> bool:
        """Take the gradient of a minibatch, and say whether the step comes now.

        If so, ``.grad`` is the mean over the images of all minibatches since the last step.

        Args:
            images: of the minibatch, over which ``.grad`` is a mean.
            last: none comes after it in this epoch.
        """
        if self._minibatches == 1:
            return True
        self._taken += 1
        self._images += images
        for place, parameter in enumerate(self._parameters):
            if parameter.grad is not None:  # a path that was dropped has none
                kept = self._sums[place]
                added = parameter.grad * images
                self._sums[place] = added if kept is None else kept.add_(added)
        if self._taken < self._minibatches and not last:
            return False
        for parameter, total in zip(self._parameters, self._sums, strict=True):
            parameter.grad = None if total is None else total.div_(self._images)
        self._sums = [None] * len(self._parameters)
        self._taken = self._images = 0
        return True
