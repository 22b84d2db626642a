"""The smallest perturbation of any direction that several attacks find, behind one call.

A ladder: what is cheap comes first, and every rung begins at the best point of those below, with
the passes that they left. The sizes are *upper bounds* on the distance to the decision boundary;
an image for which nothing was found is not safe, it was not broken within the budget.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metrics.answers import logits_of
from metrics.attacks.geometry import check_norm
from metrics.checks import check_integers
from metrics.engine.draws import Draws
from metrics.engine.evaluator import Evaluator, evaluator
from metrics.engine.memory import in_batches
from metrics.robustness.minimal.ladder import RUNGS, climb_ladder
from metrics.robustness.minimal.search import Search, distance, lost
from metrics.showing import brief

LEAST = 20  # passes an image
OUTWARDS = (1.0, 1 + 2**-10, 1 + 2**-5)  # of the found distance: where the model itself is asked


@dataclass(frozen=True)
class Perturbations:
    """The smallest perturbations that several attacks found.

    Attributes:
        size: ``(N,)`` float64: the distance of ``images`` from those given, as they are stored; 0
            for images that are wrong already, infinity where none was found.
        images: ``(N, C, H, W)``, misclassified where ``size`` is finite, else as given.
        found_by: N names: the rung that found the image (``line``, ``nearest``, ``fmn``,
            ``apgd``), ``clean`` for images that are wrong already, ``none``.
        zero_gradients: right images whose gradient is zero everywhere.
        nonfinite_gradients: right images with a NaN or an infinity in it, taken for zero there.
        forwards, backwards: images that went through the model, and whose gradient came back.
    """

    size: Tensor
    images: Tensor
    found_by: tuple[str, ...]
    zero_gradients: int
    nonfinite_gradients: int
    forwards: int
    backwards: int

    __repr__ = brief


def smallest_perturbation(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    norm: str = "linf",
    budget: int = 200,
    batch_size: int | None = None,
    fast: bool = True,
    generator: torch.Generator | None = None,
) -> Perturbations:
    """Return for each image the smallest perturbation in the box [0, 1] that breaks it.

    Args:
        model: images in [0, 1] to logits; left as found.
        images: ``(N, C, H, W)`` float in [0, 1].
        labels: ``(N,)`` true labels.
        norm: ``linf`` or ``l2``, the plain Euclidean one.
        budget: most forward passes of an image, and most backward passes; at least 20.
        batch_size: images at a time; None is what suits the device.
        fast: as in :func:`metrics.robustness.accuracy.robust_accuracy`.
        generator: decides every random draw; None takes one that torch's global one seeds.

    Raises:
        ValueError: an unknown norm, a budget below 20, and as :func:`robust_accuracy`.
    """
    check_norm(norm)
    check_budget(budget)
    with evaluator(model, images, labels, batch_size=batch_size, fast=fast) as ready:
        images, labels = ready.images, ready.labels
        wrong = ready.clean_wrong()
        size = torch.where(wrong, 0.0, torch.inf).double()
        found_by = torch.where(wrong, -2, -1)
        adversarial = images.detach().clone()
        zeros = nonfinites = 0
        right = (~wrong).nonzero().squeeze(1)
        draws = Draws.of(images, generator, whole=False)

        def work(part: slice) -> tuple[Search, int, int]:
            rows = right[part]
            x = images[rows].detach().clone()
            search = Search(ready.quick, x, labels[rows], norm, budget - 1 - len(OUTWARDS), budget)
            zero, nonfinite = climb_ladder(search, budget, draws.at(rows.tolist(), x))
            _verify(ready, search)
            return search, int(zero.sum()), int(nonfinite.sum())

        for part, (search, zero, nonfinite), most in in_batches(len(right), ready.batch_size, work):
            rows = right[part]
            size[rows], adversarial[rows] = search.size, search.images
            found_by[rows] = search.found_by
            zeros += zero
            nonfinites += nonfinite
            ready.batch_size = most
    names = ("clean", "none", *RUNGS)
    return Perturbations(
        size,
        adversarial,
        tuple(names[number + 2] for number in found_by.tolist()),
        zeros,
        nonfinites,
        ready.spent.forwards,
        ready.spent.backwards,
    )


def _verify(ready: Evaluator, search: Search) -> None:
    """Keep what the model itself misclassifies; where rounding differs, a little further out."""
    rows, images = search.found, search.images.clone()
    search.images.copy_(search.x)
    search.size.fill_(torch.inf)
    for share in OUTWARDS:
        if len(rows) == 0:
            break
        there = search.between(rows, images[rows], torch.full_like(search.size[rows], share))
        broken = lost(logits_of(ready.model, there), search.labels[rows])
        at = rows[broken]
        search.images[at] = there[broken]
        search.size[at] = distance(there[broken], search.x[at], search.norm)
        rows = rows[~broken]
    search.found_by[rows] = -1


def check_budget(budget: int) -> None:
    """Raise ValueError for fewer passes than the ladder's first rungs take."""
    check_integers(budget=budget)
    if budget < LEAST:
        raise ValueError(f"expected budget >= {LEAST} passes an image, got {budget}")
