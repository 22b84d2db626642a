"""How many random draws break each image, without looking twice at what all draws share."""

from __future__ import annotations

import torch
from torch import Tensor

from metrics.answers import margin, misclassified
from metrics.engine.evaluator import Evaluator
from metrics.engine.forwards import Forwards, perturbed
from metrics.engine.memory import in_batches
from metrics.stability.draws import UnitDraws

NEAR = 1e-3  # of the largest logit: a margin of the fast copy that the model itself is asked about


def hits_of(
    ready: Evaluator, rows: Tensor, sizes: Tensor, noise: UnitDraws, *, clip: bool, count: bool
) -> Tensor:
    """Return ``(levels, N)`` long: by how many draws of a level's size an image is broken.

    Args:
        ready: the model and its images.
        rows: ``(n,)``, which of them are looked at; the others have 0.
        sizes: ``(levels, N)``, what unit draws are multiplied by.
        noise: the draws.
        clip: put perturbed images back into [0, 1].
        count: look at every draw; else 1 stands for one or more, and an image is left alone then.
    """
    hits = torch.zeros(sizes.shape, dtype=torch.long, device=sizes.device)
    own = ready.quick is ready.model
    passes = Forwards(ready.quick, ready.images, clip=clip, split=not own)
    for some in rows.split(ready.batch_size):
        hits[:, some] = _Block(ready, passes, some).hits(sizes[:, some], noise, count=count)
    return hits


class _Block:
    """Some images, looked at under all draws."""

    def __init__(self, ready: Evaluator, passes: Forwards, rows: Tensor) -> None:
        self.ready, self.passes = ready, passes
        self.x, self.labels = ready.images[rows], ready.labels[rows]

    def hits(self, sizes: Tensor, noise: UnitDraws, *, count: bool) -> Tensor:
        """Return ``(levels, n)`` long, as :func:`hits_of`, of ``sizes`` ``(levels, n)``."""
        found = torch.zeros_like(sizes, dtype=torch.long)
        everybody = torch.arange(len(self.x), device=sizes.device)
        begun = self.passes.begun(self.x)
        left = [(everybody, begun)] * len(sizes)  # of each level, whom to look at
        number = 0
        while number < len(noise) and (most := max(len(rows) for rows, _ in left)):
            together = min(len(noise) - number, max(1, self.ready.batch_size // most))
            draws = noise.at(range(number, number + together)).to(sizes)
            share = self.passes.share(draws)
            number += together
            for level, (rows, begun) in enumerate(left):
                hits = self._hits(rows, begun, sizes[level], draws, share, found[level] > 0)
                found[level, rows] += hits
                if not count and (stand := hits == 0).sum() < len(rows):
                    left[level] = rows[stand], begun[stand]
        return found if count else found.clamp_max(1)

    def _hits(
        self,
        rows: Tensor,
        begun: Tensor,
        sizes: Tensor,
        draws: Tensor,
        share: Tensor,
        known: Tensor,
    ) -> Tensor:
        """Return ``(len(rows),)`` long: how many draws break each; ``known`` (n,) have been."""

        def look(some: slice) -> Tensor:
            def under(part: slice) -> Tensor:
                at = rows[some]
                logits = self.passes.logits(begun[some], sizes[at], share[part])
                self.ready.spent.forwards += len(logits) if self.passes.split else 0
                return self._wrong(logits, at, sizes, draws[part], known)

            masks = []
            for _, mask, most in in_batches(len(draws), len(draws), under):
                masks.append(mask)
                if most < len(draws):
                    self.ready.batch_size = most * len(rows[some])
            return torch.cat(masks, dim=1).sum(dim=1)

        found = [torch.zeros(0, dtype=torch.long, device=rows.device)]
        for _, hits, most in in_batches(len(rows), max(1, len(rows)), look):
            found.append(hits)
            if most < len(rows):
                self.ready.batch_size = most
        return torch.cat(found)

    def _wrong(
        self, logits: Tensor, rows: Tensor, sizes: Tensor, draws: Tensor, known: Tensor
    ) -> Tensor:
        """Return ``(len(rows), len(draws))`` bool: what is misclassified."""
        every = rows.repeat_interleave(len(draws))
        wrong = misclassified(logits, self.labels[every])
        # The copy's word counts far from the boundary, once the model itself has been heard.
        near = margin(logits, self.labels[every]).abs() <= NEAR * logits.abs().amax(dim=1)
        asked = (near | (wrong & ~known[every])).nonzero().squeeze(1)
        if len(asked):
            at, drawn = every[asked], asked % len(draws)
            x = perturbed(self.x[at], sizes[at], draws[drawn], clip=self.passes.clip)
            wrong[asked] = self.ready.wrong(x, self.labels[at])
        return wrong.view(len(rows), len(draws))
