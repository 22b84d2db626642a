"""The order of the rungs, and how the budget is split between them.

With B the budget, of passes forwards and of passes back:

1. ``line``: the gradient of the margin loss at the image; at most 8 + min(11, (B - 20) / 8) looks.
2. ``nearest``: min(9, B / 10) classes are linearised with that one forward pass, a pass back each,
   and the two or three nearest looked at; images that still stand walk to the boundary, then are
   attacked in the whole box.
3. ``fmn``: B up to 100 gives it everything that is left, a larger one ``FIRST`` of B.
4. ``apgd``, where B is 100 or more: rounds of B / 5 steps (20 to 50) at ``CLOSER`` of the best
   size, cross entropy and DLR in turn, until ``MISSES`` rounds in a row found nothing or ``AGAIN``
   of B is left; that goes to ``fmn`` again.

Each rung but the line ends with looks that halve the segment from the image to what it found.
The figures were chosen by `bench/smallest.py`; 30 % more or less of each moved medians by less than
half a percent.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from metrics.answers import margin, margin_loss, temperatures, useless
from metrics.attacks.geometry import Randomness
from metrics.robustness.minimal.apgd import attack_within
from metrics.robustness.minimal.fmn import descend
from metrics.robustness.minimal.line import FINEST, search_line
from metrics.robustness.minimal.nearest import rivals, step_to_each, walk
from metrics.robustness.minimal.search import Search
from metrics.robustness.minimal.segment import shrink

RUNGS = ("line", "nearest", "fmn", "apgd")
LINE, NEAREST, FMN, APGD = range(4)
FIRST, AGAIN = 0.4, 0.25  # shares of the budget
ENOUGH = 100  # a budget from which on there are rounds of APGD
CLOSER = 0.97  # of the best size
MISSES = 4
LOOKS = 3  # that halve a segment
FAR = 7  # the same, of what was found anywhere in the box


def climb_ladder(search: Search, budget: int, random: Randomness) -> tuple[Tensor, Tensor]:
    """Spend the passes of ``search``.

    Returns:
        ``(N,)`` bool twice: images whose gradient is zero everywhere, and not finite somewhere.
    """
    gradient, classes = _first_rungs(search, budget)
    if len(search.missing):
        _anywhere(search, budget, random)
    if budget < ENOUGH:
        _descend(search, budget)
    else:
        _descend(search, int(FIRST * budget))
        _rounds(search, budget, classes, random)
        _descend(search, budget)
    return useless(gradient)


def _first_rungs(search: Search, budget: int) -> tuple[Tensor, int]:
    """Climb line and nearest; return the gradient at the images, and the number of classes."""
    rows, labels = search.everything, search.labels

    def losses(logits: Tensor) -> list[Tensor]:
        count = min(logits.shape[1] - 1, budget // 10, 9)
        own = logits.gather(1, labels[:, None])
        ahead = logits.gather(1, rivals(logits.detach(), labels, count)) - own
        return [margin_loss(logits / temperatures(logits), labels), *ahead.T]

    logits, (gradient, *slopes) = search.slopes(rows, search.x, losses)
    others = rivals(logits, labels, len(slopes))
    margins = margin(logits, labels).double()
    search.rung = LINE
    closing = min(FINEST, (budget - 20) // 8)
    search_line(search, rows, gradient.nan_to_num(0, 0, 0), margins, closing)
    search.rung = NEAREST
    finite = [slope.nan_to_num(0, 0, 0) for slope in slopes]
    step_to_each(search, rows, logits, finite, others, 2 if budget < ENOUGH else 3)
    walk(search, search.missing, max(4, budget // 10))
    return gradient, logits.shape[1]


def _anywhere(search: Search, budget: int, random: Randomness) -> None:
    """Attack what still stands in the whole box, and come back as far as halving goes."""
    search.rung = APGD
    steps = max(1, budget // 10)
    rows = search.able(search.missing, steps + 1)
    if len(rows):
        widest = 1.0 if search.norm == "linf" else math.sqrt(search.x[0].numel())
        attack_within(search, rows, torch.full_like(search.size[rows], widest), steps, "ce", random)
        shrink(search, rows[search.size[rows].isfinite()], FAR)


def _descend(search: Search, passes: int) -> None:
    """Give the descent at most so many passes, as far as there are more than halving needs."""
    search.rung = FMN
    rows = search.found
    left = torch.minimum(search.forwards[rows] - LOOKS, search.backwards[rows])
    left = left.clamp_max(passes)
    descend(search, rows[left > 0], left[left > 0])
    shrink(search, search.found, LOOKS, 0.99)


def _rounds(search: Search, budget: int, classes: int, random: Randomness) -> None:
    """Let Auto-PGD try to get closer, while it goes on finding."""
    search.rung = APGD
    steps = min(50, max(20, budget // 5))
    wanted = steps + 1 + LOOKS + int(AGAIN * budget)
    misses = torch.zeros_like(search.labels)
    for turn in range(budget):
        rows = search.able(search.found, wanted)
        rows = rows[misses[rows] < MISSES]
        if len(rows) == 0:
            return
        before = search.size[rows]
        loss = "dlr" if turn % 2 and classes > 2 else "ce"
        attack_within(search, rows, CLOSER * before, steps, loss, random)
        closer = search.size[rows] < before
        misses[rows] = torch.where(closer, 0, misses[rows] + 1)
        shrink(search, rows[closer], LOOKS, 0.9)
