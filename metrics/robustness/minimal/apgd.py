"""The fourth rung: Auto-PGD in a ball a little smaller than the best one.

The attack is :class:`metrics.attacks.APGD` from its random start, so it finds what the descent from
one point does not come to. Every image has a radius of its own here, and leaves once it breaks.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from metrics.answers import temperatures
from metrics.attacks import APGD
from metrics.attacks.geometry import SHORTER, Randomness, column, length_of, moved, within
from metrics.attacks.rows import Rows
from metrics.precision import widened
from metrics.robustness.minimal.search import Search, lead_of, lost


@dataclass(frozen=True, kw_only=True)
class Within(APGD):
    """Auto-PGD with a radius for each image; in L infinity it starts uniformly.

    Args:
        radii: ``(N,)`` float64, of the whole batch; ``epsilon`` plays no part.
    """

    radii: Tensor = field(compare=False)

    def begin(self, rows: Rows, random: Randomness) -> None:
        rows.radius = self.radii.index_select(0, random.rows)
        super().begin(rows, random)
        if self.norm == "linf":  # whose start above is as long as epsilon, cut off at the radius
            noise = 2 * random.uniform(*rows.x.shape[1:]) - 1
            there = rows.x.double() + column(rows.radius) * noise
            rows.candidate = rows.previous = rows.best = self.inside(rows, there)
        rows.step_size = 2 * rows.radius.to(rows.step_size.dtype)

    def surround(self, rows: Rows) -> None:
        if self.norm == "linf":
            rows.low, rows.high = within(rows.x, column(rows.radius))

    def inside(self, rows: Rows, images: Tensor) -> Tensor:
        if self.norm == "linf":
            return super().inside(rows, images)
        delta = widened(images) - widened(rows.x)
        length = length_of(delta, "l2").clamp_min(1e-30)
        share = (SHORTER * rows.radius.to(length.dtype) / length).clamp_max(1)
        return moved(rows.x, delta * column(share))


def attack_within(
    search: Search,
    rows: Tensor,
    radii: Tensor,
    steps: int,
    random: Randomness,
    *,
    targets: Tensor | None = None,
) -> None:
    """Attack the images of ``rows`` within ``radii`` ``(rows,)``; each leaves once it breaks.

    Costs at most ``steps`` + 1 passes forwards and ``steps`` back.

    Args:
        search: images and passes.
        rows: which, ascending.
        radii: of their balls, float64.
        steps: as in :class:`metrics.attacks.APGD`.
        random: of all images of the search.
        targets: ``(N,)``, the class whose logit is to pass the label's; None goes away from the
            label.
    """
    every = torch.zeros_like(search.size)
    every[rows] = radii
    attack = Within(epsilon=1.0, norm=search.norm, steps=steps, radii=every)
    random.keep(rows)
    state = Rows(x=search.x[rows], candidate=search.x[rows])
    attack.begin(state, random)
    state.numbers, state.labels = rows, search.labels[rows]
    for step in range(steps):

        def losses(logits: Tensor, step: int = step) -> Tensor:
            if step == 0:
                state.temperatures = temperatures(logits)
            if targets is None:
                value = attack.losses(logits / state.temperatures, state.labels)
            else:
                value = lead_of(targets[state.numbers], logits, state.labels)
            state.losses = value.detach()
            return value

        logits, state.gradient = search.climb(state.numbers, state.candidate, losses)
        standing = (~lost(logits, state.labels)).nonzero().squeeze(1)
        if len(standing) < len(logits):
            state.keep(standing)
            random.keep(state.numbers)
        if len(standing) == 0:
            return
        attack.advance(state, step, random)
    search.look(state.numbers, state.candidate)
