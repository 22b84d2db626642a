"""What a recipe's values must be: anything else is refused in one line."""

from __future__ import annotations

import itertools
import math
from typing import Any

from metrics.attacks import PGD

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("one-cycle", "cosine", "step", "halving", "constant")
CALLED_HERE = {"piecewise": "step", "multi-step": "step", "cyclic": "one-cycle"}
"""Names that schedules have elsewhere -> the name here: one name for one training, and one hash."""
LOSSES = ("cross-entropy", "mse", "trades", "mart")
PAIRED = ("trades", "mart")
"""Losses of a clean image and its adversarial one together."""
PRECISIONS = ("auto", "float32", "bf16")
EPSILON = 8 / 255  # usual in L infinity


def check_recipe(recipe: Any) -> None:
    """Raise ValueError for a value out of range or an unknown name.

    Args:
        recipe: a :class:`nas.trial.recipe.Recipe`, whose module stands above this one.
    """
    if recipe.schedule in CALLED_HERE:
        raise ValueError(f"schedule: expected one of {list(SCHEDULES)}, got {recipe.schedule!r}, "
                         f"which is called {CALLED_HERE[recipe.schedule]} here")  # fmt: skip
    for field, known in (
        ("optimizer", OPTIMIZERS),
        ("schedule", SCHEDULES),
        ("loss", LOSSES),
        ("precision", PRECISIONS),
        ("attack_precision", PRECISIONS),
    ):
        if getattr(recipe, field) not in known:
            raise ValueError(f"{field}: expected one of {list(known)}, got "
                             f"{getattr(recipe, field)!r}")  # fmt: skip
    _check_schedule(recipe)
    for field in ("batch_size", "accumulate"):
        if getattr(recipe, field) < 1:
            raise ValueError(f"{field}: expected >= 1, got {getattr(recipe, field)}")
    for field in ("epochs", "selection_images", "weight_decay", "crop_padding", "cutout"):
        if getattr(recipe, field) < 0:
            raise ValueError(f"{field}: expected >= 0, got {getattr(recipe, field)}")
    for field in ("attacked_share", "label_smoothing", "momentum"):
        if not 0 <= getattr(recipe, field) <= 1:
            name = field.replace("attacked", "adversarial")
            raise ValueError(f"{name}: expected a share in [0, 1], got "
                             f"{getattr(recipe, field)}")  # fmt: skip
    for field in ("learning_rate", "entropy_weight", "weight_decay"):
        if not math.isfinite(getattr(recipe, field)):
            raise ValueError(f"{field}: expected a finite number, got {getattr(recipe, field)}")
    if recipe.loss == "mse" and recipe.label_smoothing:
        raise ValueError(
            f"label_smoothing: expected 0 for the loss mse, got {recipe.label_smoothing}"
        )
    if recipe.learning_rate <= 0:
        raise ValueError(f"learning_rate: expected > 0, got {recipe.learning_rate}")
    if recipe.gradient_clip is not None and not recipe.gradient_clip > 0:
        raise ValueError(f"gradient_clip: expected > 0 or null, got {recipe.gradient_clip}")
    for field in ("beta", "awp", "awp_warmup"):
        if not (math.isfinite(getattr(recipe, field)) and getattr(recipe, field) >= 0):
            raise ValueError(f"{field}: expected a finite number >= 0, got "
                             f"{getattr(recipe, field)}")  # fmt: skip
    if recipe.loss in PAIRED and recipe.adversary == "none":
        raise ValueError(
            f"adversary: expected one for the loss {recipe.loss}, which compares images with "
            "their adversarial ones, got none"
        )
    if recipe.weight_average is not None and not 0 < recipe.weight_average < 1:
        raise ValueError(
            f"weight_average: expected a decay in (0, 1) or null, got {recipe.weight_average}"
        )
    if recipe.patience is not None and recipe.patience < 1:
        raise ValueError(f"patience: expected >= 1 or null, got {recipe.patience}")
    if recipe.patience is not None and not recipe.selection_images:
        raise ValueError(
            "patience: expected selection_images >= 1 to judge epochs by, got 0 "
            f"with patience {recipe.patience}"
        )
    _check_attack_settings(recipe)
    recipe.judge()  # checks adversary, epsilon, steps and step_size
    if recipe.norm == "l2" and recipe.epsilon == EPSILON:
        raise ValueError(
            f"epsilon: expected one of its own for norm l2 (such as 0.5), got 8/255, the "
            f"default of L infinity, for the adversary {recipe.adversary}"
        )


def _check_attack_settings(recipe: Any) -> None:
    if recipe.early_steps is not None and not 1 <= recipe.early_steps <= recipe.steps:
        raise ValueError(
            f"early_steps: expected 1 to steps ({recipe.steps}) or null, got {recipe.early_steps}"
        )
    attack = recipe.attack()
    if recipe.early_steps is not None and not hasattr(attack, "steps"):
        raise ValueError(
            f"early_steps: expected an adversary that has steps, got {recipe.adversary}"
        )
    if recipe.carry_perturbations and type(attack) is not PGD:
        raise ValueError(
            "carry_perturbations: expected the adversary pgd and no loss trades, got "
            f"{recipe.adversary} and {recipe.loss}"
        )
    moved = [name for name in ("flip", "crop_padding", "cutout") if getattr(recipe, name)]
    if recipe.carry_perturbations and moved:
        raise ValueError(
            f"carry_perturbations: expected images that are not moved about, got {', '.join(moved)}"
        )


def _check_schedule(recipe: Any) -> None:
    ends = (0.0, *recipe.milestones, 1.0)
    if not all(earlier < later for earlier, later in itertools.pairwise(ends)):
        raise ValueError(f"milestones: expected increasing parts of the training in (0, 1), "
                         f"got {list(recipe.milestones)}")  # fmt: skip
    if recipe.warmup_epochs == 0:
        return
    if not 0 < recipe.warmup_epochs < recipe.epochs:
        raise ValueError(f"warmup_epochs: expected 0 or more, and fewer than the {recipe.epochs} "
                         f"epochs, got {recipe.warmup_epochs}")  # fmt: skip
    if recipe.schedule == "one-cycle":
        raise ValueError("warmup_epochs: expected 0 for the schedule one-cycle, which climbs "
                         f"over its first quarter, got {recipe.warmup_epochs}")  # fmt: skip
