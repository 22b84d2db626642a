"""How far a training has come: all that its next step depends on, and what it has reported."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nas.trial.averaging import WeightAverage
from nas.trial.optimizing import optimizer_of
from nas.trial.recipe import Recipe

Weights = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Epoch:
    """One epoch's report; accuracies are of the first ``selection_images`` validation images.

    NaN where there are none. Those of the averaged weights are NaN where none are averaged.
    ``stopped_early``: training ends with it, before the recipe's last epoch (``patience``).
    """

    epoch: int
    train_loss: float
    clean_accuracy: float
    robust_accuracy: float
    seconds: float
    average_clean_accuracy: float = math.nan
    average_robust_accuracy: float = math.nan
    stopped_early: bool = False

    def values(self) -> tuple[float | None, ...]:
        """Return the fields, None for NaN: what two equal reports have in common."""
        found = (getattr(self, f.name) for f in fields(self))
        return tuple(None if math.isnan(value) else value for value in found)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Epoch) and self.values() == other.values()

    def __hash__(self) -> int:
        return hash(self.values())

    @property
    def rank(self) -> tuple[float, float]:
        """What plain weights are compared by: robust, then clean accuracy."""
        return self.robust_accuracy, self.clean_accuracy

    @property
    def average_rank(self) -> tuple[float, float]:
        """What averaged weights are compared by."""
        return self.average_robust_accuracy, self.average_clean_accuracy

    @property
    def average_is_better(self) -> bool:
        """Whether the averaged weights are better than the plain ones of this epoch."""
        return self.average_rank > self.rank

    @property
    def better_rank(self) -> tuple[float, float]:
        """The accuracies, robust and clean, of the better of the two."""
        return self.average_rank if self.average_is_better else self.rank


class Stateful(Protocol):
    """Something that changes from epoch to epoch."""

    def state_dict(self) -> dict[str, Any]:
        """Return what changes, as tensors and plain types."""

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Take what :meth:`state_dict` gave."""


@dataclass
class TrainingState:
    """What changes from epoch to epoch.

    Attributes:
        model: with the weights of now.
        optimizer: of its parameters.
        generator: decides order, augmentation and random starts; on the model's device.
        judge_seed: of the random starts of the attack that judges epochs, the same in each.
        step: optimizer steps so far.
        epochs: reports so far.
        best, best_weights: the best epoch's by its plain weights, None and empty before the first.
        average: of the weights, with the best of its own; None where none are averaged.
        parts: what else an epoch leaves to the next, by name, such as an adversary that carries
            perturbations; there from the beginning on.

    A checkpoint keeps every attribute (:mod:`nas.trial.checkpoint`): what has a ``state_dict`` is
    restored in place, other values are set.
    """

    model: nn.Module
    optimizer: Optimizer
    generator: torch.Generator
    judge_seed: int
    step: int = 0
    epochs: list[Epoch] = field(default_factory=list)
    best: Epoch | None = None
    best_weights: Weights = field(default_factory=dict)
    average: WeightAverage | None = None
    parts: dict[str, Stateful] = field(default_factory=dict)

    @classmethod
    def begun(cls, model: nn.Module, recipe: Recipe, generator: torch.Generator) -> TrainingState:
        """Return the state before the first epoch."""
        judge_seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        state = cls(model, optimizer_of(model, recipe), generator, judge_seed)
        if recipe.weight_average is not None:
            state.average = WeightAverage(model, recipe.weight_average)
        return state

    def note(self, report: Epoch, *, judged: bool) -> None:
        """Add an epoch's report, and keep its weights where it is the best so far.

        Best is by robust accuracy, then clean accuracy, then the earlier epoch; the last one where
        none is ``judged``. Plain and averaged weights each have their best.
        """
        self.epochs.append(report)
        best = self.best
        if best is None or not judged or report.rank > best.rank:
            self.best, self.best_weights = report, copied_weights(self.model)
        average, best = self.average, self.best_average
        if average is None:
            return
        if best is None or not judged or report.average_rank > best.average_rank:
            average.best_epoch = report.epoch
            average.best_weights = average.weights()

    @property
    def best_average(self) -> Epoch | None:
        """The best epoch by its averaged weights; None before the first."""
        number = 0 if self.average is None else self.average.best_epoch
        return self.epochs[number - 1] if number else None

    def first_epoch(self) -> int:
        """Return the number of the epoch that comes next, from 1 on."""
        return len(self.epochs) + 1


def copied_weights(model: nn.Module) -> Weights:
    """Return a copy of everything in the model's state dict."""
    return {name: w.detach().clone() for name, w in model.state_dict().items()}


def better_scores(report: Mapping[str, Any]) -> dict[str, float]:
    """Return both accuracies of an epoch's better weights, plain or averaged.

    It is by these that a scheduler compares trials: a trial is worth what it can end with.

    Args:
        report: of an epoch, as ``asdict`` or a row of ``epochs.csv`` gives it; those of earlier
            versions have no averages.

    Raises:
        KeyError, ValueError: it is no report.
    """
    names = "robust_accuracy", "clean_accuracy"
    plain = tuple(float(report[name]) for name in names)
    average = tuple(float(report.get(f"average_{name}", math.nan)) for name in names)
    return dict(zip(names, average if average > plain else plain, strict=True))


def out_of_patience(recipe: Recipe, epochs: Sequence[Epoch]) -> bool:
    """Whether the last ``patience`` of these epochs were all no better than one before them."""
    if recipe.patience is None:
        return False
    ranks = [epoch.better_rank for epoch in epochs]
    return len(ranks) - 1 - ranks.index(max(ranks)) >= recipe.patience


def untrained() -> Epoch:
    """Return the report of a model that was not trained: epoch 0, which nothing judged."""
    return Epoch(0, math.nan, math.nan, math.nan, 0.0)
