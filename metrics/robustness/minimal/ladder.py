"""The order of the rungs, and how the budget is split between them."""

from __future__ import annotations

import torch
from torch import Tensor

from metrics.answers import margin, margin_loss, temperatures, useless
from metrics.robustness.minimal.fmn import descend
from metrics.robustness.minimal.line import FINEST, RUNGS, search_line
from metrics.robustness.minimal.nearest import rivals, step_to_each, walk
from metrics.robustness.minimal.search import Search
from metrics.robustness.minimal.segment import shrink

LINE, NEAREST, FMN, APGD = range(4)
LAST = 3  # looks at the end that halve what is left of the segment


def climb_ladder(search: Search, budget: int) -> tuple[Tensor, Tensor]:
    """Spend the passes of ``search``.

    Returns:
        ``(N,)`` bool twice: images whose gradient is zero everywhere, and not finite somewhere.
    """
    gradient = _first_rungs(search, budget)
    search.rung = FMN
    rows = search.able(search.found, LAST + 2)
    left = torch.minimum(search.forwards[rows] - LAST, search.backwards[rows])
    descend(search, rows, left)
    shrink(search, search.found, LAST, 0.99)
    return useless(gradient)


def _first_rungs(search: Search, budget: int) -> Tensor:
    """Climb the line and step to the nearest classes; return the gradient at the images."""
    rows, labels = search.everything, search.labels
    classes = 0

    def losses(logits: Tensor) -> list[Tensor]:
        nonlocal classes
        classes = min(logits.shape[1] - 1, max(1, budget // 10), 9)
        own = logits.gather(1, labels[:, None])
        ahead = logits.gather(1, rivals(logits.detach(), labels, classes)) - own
        return [margin_loss(logits / temperatures(logits), labels), *ahead.T]

    logits, (gradient, *slopes) = search.slopes(rows, search.x, losses)
    finite = gradient.nan_to_num(0, 0, 0)
    margins = margin(logits, labels).double()
    closing = max(0, min(FINEST, (budget - LEAST_FOR_CLOSING) // 8))
    search.rung = LINE
    search_line(search, rows, finite, margins, closing)
    search.rung = NEAREST
    others = rivals(logits, labels, classes)
    slopes = [slope.nan_to_num(0, 0, 0) for slope in slopes]
    step_to_each(search, rows, logits, slopes, others, min(classes, 2 if budget < 100 else 3))
    walk(search, search.missing)
    return gradient


LEAST_FOR_CLOSING = 1 + 3 + 1 + RUNGS + 2 + 2
