"""The second rung: to the nearest class, if the logits were linear, in the box.

DeepFool (Moosavi-Dezfooli et al. 2016, arXiv 1511.04599, algorithm 2) with steps that keep to the
box, as in FAB (Croce and Hein 2020): exact for linear models.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metrics.answers import margin
from metrics.attacks.geometry import moved
from metrics.attacks.linear import smallest_step
from metrics.robustness.minimal.search import Search, distance, lost

OVERSHOOT = 1.002
FURTHER = 1.02


def rivals(logits: Tensor, labels: Tensor, count: int) -> Tensor:
    """Return ``(N, count)``: the other classes, largest logit first."""
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.topk(count, dim=1).indices


def step_to_each(
    search: Search, rows: Tensor, logits: Tensor, slopes: list[Tensor], classes: Tensor, looks: int
) -> Tensor:
    """Look at the nearest points where each class would win, the ``looks`` nearest of them.

    Returns:
        ``classes``, the nearest first.

    Args:
        search: images and passes.
        rows: which.
        logits: of the images.
        slopes: gradients, for each column of ``classes``, of its logit minus the label's.
        classes: ``(rows, classes)``.
        looks: how many.
    """
    x = search.x[rows]
    own = logits.gather(1, search.labels[rows][:, None])
    lead = (own - logits.gather(1, classes)).double().nan_to_num(0, 0, 0)
    there = torch.stack(
        [
            moved(x, OVERSHOOT * smallest_step(x, slope, lead[:, i], search.norm))
            for i, slope in enumerate(slopes)
        ]
    )
    far = torch.stack([distance(images, x, search.norm) for images in there])
    order = far.argsort(dim=0, stable=True)
    every = torch.arange(len(rows), device=rows.device)
    for rank in order[:looks]:
        search.look(rows, there[rank, every])
    return classes.gather(1, order.T)


def walk(search: Search, rows: Tensor, steps: int) -> None:
    """Step to the largest other class, at most ``steps`` times, until the image breaks.

    Costs at most ``steps`` + 1 passes forwards and ``steps`` back.
    """
    here = search.x[rows]
    for _ in range(steps):
        able = torch.minimum(search.forwards[rows], search.backwards[rows]) > 0
        rows, here = rows[able], here[able]
        if len(rows) == 0:
            return
        labels = search.labels[rows]

        def loss(logits: Tensor, labels: Tensor = labels) -> Tensor:
            return -margin(logits, labels)

        logits, gradient = search.climb(rows, here, loss)
        standing = ~lost(logits, labels)
        rows, here = rows[standing], here[standing]
        lead = margin(logits, labels).double()[standing]
        step = smallest_step(here, gradient[standing], lead, search.norm)
        here = moved(here, FURTHER * step)
    left = search.forwards[rows] > 0
    search.look(rows[left], here[left])
