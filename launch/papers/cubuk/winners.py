"""The retrained winners of the searches: their models, their rows, and test images to ask about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from launch.config.sections import Retrain
from launch.runs.retrain import retraining, saved_row, with_recipe
from launch.runs.retrained import Retrained
from launch.runs.run import FinishedTrial, Run
from launch.runs.subject import trial_model
from nas.data.arrays import prepare_test
from nas.data.datasets import load_test_images
from nas.device import choose_device
from nas.errors import InputError


@dataclass(frozen=True)
class Winner:
    """A search's winner, retrained.

    Attributes:
        name: of the search, and how it was retrained where it was otherwise.
        run: of the retraining.
        trial: the best of its trials.
        row: what Table 1 has of it.
    """

    name: str
    run: Run
    trial: FinishedTrial
    row: Retrained

    @property
    def path(self) -> Path:
        """Where what is measured of it is kept."""
        return self.run.path

    @property
    def device(self) -> str:
        """What it runs on."""
        return choose_device(self.run.config.resources.gpu != 0)

    def model(self) -> nn.Module:
        """Return the trained model, in ``eval()``, on its device."""
        return trial_model(self.run, self.trial).to(self.device)

    def test_images(self) -> tuple[Tensor, Tensor]:
        """Return the test images ``(N, C, H, W)`` of Table 1, and their labels, on its device."""
        data = self.trial.trial.data
        test = prepare_test(load_test_images(data), data, self.device)
        return test.images(slice(self.row.images)), test.labels[: self.row.images]


def retrained_winner(run: Run, recipe: Mapping[str, Any] | None = None) -> Winner:
    """Return the winner of a search, retrained as its configuration says.

    Args:
        run: the search.
        recipe: keys of the recipe that it was retrained with in place of the configuration's.

    Raises:
        InputError: it has not been retrained so.
    """
    asked, name = run.config.retrain or Retrain(), run.config.name
    if recipe:
        asked = with_recipe(asked, recipe)
        name = f"{name}, {', '.join(str(value) for value in recipe.values())}"
    if (row := saved_row(run, asked)) is None:
        how = f" with {dict(recipe)}" if recipe else ""
        raise InputError(
            f"expected the winner of {run.path} retrained{how}, got no {retraining(run, asked)}"
        )
    retrained = Run(retraining(run, asked))
    return Winner(name, retrained, retrained.best(), replace(row, model=name))
