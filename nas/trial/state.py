"""How far a training has come: all that its next step depends on, and what it has reported."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nas.trial.optimizing import optimizer_of
from nas.trial.recipe import Recipe

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Epoch:
    """One epoch's report; accuracies are of the first ``selection_images`` validation images.

    NaN where there are none.
    """

    epoch: int
    train_loss: float
    clean_accuracy: float
    robust_accuracy: float
    seconds: float


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
        best, best_weights: the best epoch's, None and empty before the first.
    """

    model: nn.Module
    optimizer: Optimizer
    generator: torch.Generator
    judge_seed: int
    step: int = 0
    epochs: list[Epoch] = field(default_factory=list)
    best: Epoch | None = None
    best_weights: Weights = field(default_factory=dict)

    @classmethod
    def begun(cls, model: nn.Module, recipe: Recipe, generator: torch.Generator) -> TrainingState:
        """Return the state before the first epoch."""
        judge_seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        return cls(model, optimizer_of(model, recipe), generator, judge_seed)

    def note(self, report: Epoch, *, judged: bool) -> None:
        """Add an epoch's report, and keep its weights where it is the best so far.

        Best is by robust accuracy, then clean accuracy, then the earlier epoch; the last one where
        none is ``judged``.
        """
        self.epochs.append(report)
        best = self.best
        if best is None or not judged or _rank(report) > _rank(best):
            self.best, self.best_weights = report, copied_weights(self.model)

    def first_epoch(self) -> int:
        """Return the number of the epoch that comes next, from 1 on."""
        return len(self.epochs) + 1


def copied_weights(model: nn.Module) -> Weights:
    """Return a copy of everything in the model's state dict."""
    return {name: w.detach().clone() for name, w in model.state_dict().items()}


def untrained() -> Epoch:
    """Return the report of a model that was not trained: epoch 0, which nothing judged."""
    return Epoch(0, math.nan, math.nan, math.nan, 0.0)


def _rank(report: Epoch) -> tuple[float, float]:
    return report.robust_accuracy, report.clean_accuracy
