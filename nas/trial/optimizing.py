"""The optimizer of a recipe, and its learning rate at every step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
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


def learning_rate(recipe: Recipe, step: int, steps_an_epoch: int) -> float:
    """Return the learning rate of a step, of which the first is 0."""
    return recipe.learning_rate * _share(recipe, step, max(1, recipe.epochs * steps_an_epoch))


def _share(recipe: Recipe, step: int, total: int) -> float:
    """Return the part of the largest rate that is left at ``step`` of ``total``."""
    done = min(step / total, 1.0)
    if recipe.schedule == "one-cycle":
        warm = max(1, total // 4)
        return (step + 1) / warm if step < warm else (total - step) / (total - warm + 1)
    if recipe.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    if recipe.schedule == "halving":
        return 0.5 ** (5 * step // total)
    if recipe.schedule == "step":
        return 0.1 ** ((done >= 0.5) + (done >= 0.75))
    return 1.0
