"""What an attack in steps knows of each image."""

from __future__ import annotations

import torch
from torch import Tensor

from metrics.precision import widened


class Rows:
    """What an attack knows of the images that are left, one row an image in every tensor.

    Always there: ``x`` (the images), ``labels``, ``aim`` (the class that the loss is taken of) and
    ``candidate`` (what is looked at next). An attack adds its own.
    """

    def __init__(self, **tensors: Tensor) -> None:
        vars(self).update(tensors)

    def __getattr__(self, name: str) -> Tensor:
        raise AttributeError(name)

    def __setattr__(self, name: str, value: Tensor) -> None:
        vars(self)[name] = value

    def keep(self, rows: Tensor) -> None:
        """Keep these rows, ``(rows,)``, and drop the others."""
        for name, tensor in vars(self).items():
            vars(self)[name] = tensor.index_select(0, rows)


def unbeaten(x: Tensor) -> Tensor:
    """Return a loss for each image that any other is larger than, in float32 at least."""
    return widened(x.new_empty(0)).new_full((len(x),), -torch.inf)
