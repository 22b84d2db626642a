"""The epsilon that linear response predicts, beside the one at which the answer changes.

Both are along the same line x + ε u, u the attack's direction at x
(:mod:`metrics.universality.linear_response`). The line is looked at upwards from an eighth of the
predicted epsilon, by a fifth each time; the first bracket is then closed by ITP.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metrics.answers import logits_of, margin, silent
from metrics.attacks.geometry import check_length, check_norm
from metrics.checks import check_images
from metrics.engine.evaluator import evaluator
from metrics.engine.memory import in_batches
from metrics.robustness.bracket import Bracket, Ray
from metrics.universality.linear_response import LinearResponse, empty, respond

LIMIT = 50 / 255  # up to which the paper's attacks go, in L infinity
START, GROWTH = 1 / 8, 1.2  # of the prediction; from one look to the next
FINEST = 2**-40  # of the limit: what is smaller is no epsilon
DECILE = 0.1


@dataclass(frozen=True)
class Agreement:
    """What was predicted for each image, and what was measured.

    Attributes:
        response: the prediction.
        measured: ``(N,)`` float64: an epsilon at which the answer was seen to change; infinity
            where none was seen up to the limit, NaN where it is wrong already.
        first_rank: ``(N,)`` long, the rank at the image of the class that took over; 0 where none
            did, or where the logits are not numbers.
        limit: the largest epsilon looked at.
    """

    response: LinearResponse
    measured: Tensor
    first_rank: Tensor
    limit: float

    @property
    def predicted(self) -> Tensor:
        """``(N,)`` float64: ε̂ of linear response, infinite where it predicts no change."""
        return self.response.epsilon

    @property
    def ratio(self) -> Tensor:
        """``(N,)``: predicted over measured; NaN where both are infinite or the image is wrong."""
        return self.predicted / self.measured

    @property
    def successful(self) -> Tensor:
        """``(N,)`` bool: right images whose answer changed up to the limit."""
        return self.measured.isfinite()

    def lowest(self, share: float = 1.0) -> Tensor:
        """Return ``(k,)`` long: that share of the successful attacks, those that needed the least.

        Raises:
            ValueError: a share outside (0, 1].
        """
        if not 0 < share <= 1:
            raise ValueError(f"share: expected a part in (0, 1], got {share!r}")
        rows = self.successful.nonzero().squeeze(1)
        return rows[self.measured[rows].argsort(stable=True)][: math.ceil(share * len(rows))]

    def median_ratio(self, share: float = 1.0) -> float:
        """Return the median ratio of :meth:`lowest`; NaN of none, the lower one of two middles."""
        rows = self.lowest(share)
        return self.ratio[rows].median().item() if len(rows) else math.nan

    @property
    def lowest_decile(self) -> float:
        """The median ratio of the tenth of successful attacks that needed the least."""
        return self.median_ratio(DECILE)

    @property
    def rank_correlation(self) -> float:
        """Spearman's, of predicted and measured over the successful attacks; NaN of fewer than 2.

        NaN too where one of them is the same for all.
        """
        known = self.successful & ~self.predicted.isnan()
        ranks = torch.stack([_ranks(v[known]) for v in (self.predicted, self.measured)])
        if ranks.shape[1] < 2:
            return math.nan
        apart = ranks - ranks.mean(dim=1, keepdim=True)
        a, b = apart
        return float((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt())

    def runner_up_first(self, share: float = 1.0) -> float:
        """Return how many of :meth:`lowest`, as a share, crossed Δ_12 first; NaN of none."""
        return _mean(self.first_rank[self.lowest(share)] == 2)

    def foreseen(self, share: float = 1.0) -> float:
        """Return how many of :meth:`lowest`, as a share, crossed the predicted rank first.

        NaN of none.
        """
        rows = self.lowest(share)
        return _mean(self.first_rank[rows] == self.response.first[rows])


def compare(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    norm: str = "l2",
    limit: float | None = None,
    tolerance: float = 1e-5,
    clip: bool = False,
    batch_size: int | None = None,
) -> Agreement:
    """Return the predicted epsilon of each image beside the smallest that was seen to break it.

    The line is looked at at ε̂/8 and then upwards, 1.2 times further each time, until the answer
    changes; where it has changed at the first look, downwards until it has not. Between the last
    look that was right and the first that was wrong, ITP looks for one boundary. So the answer has
    changed at ``measured``, it was right within ``tolerance`` below, and right at every look
    before: a smaller epsilon breaks the image only inside of a gap between two looks.

    Args:
        model, images, labels, norm, batch_size: as in
            :func:`metrics.universality.linear_response.linear_response`.
        limit: the largest epsilon looked at; None is 50/255 in L infinity, and in L2 the length
            of such a step in every pixel.
        tolerance: of the epsilon, relative.
        clip: put images of the line back into [0, 1]; linear response knows no box.

    Raises:
        ValueError: a limit or tolerance out of range, and as ``linear_response``.
    """
    check_norm(norm)
    images = check_images(images)
    if limit is None:
        limit = LIMIT * (math.sqrt(images[0].numel()) if norm == "l2" else 1)
    check_length("limit", limit, norm, zero=False)
    if not FINEST <= tolerance < 1:
        raise ValueError(f"tolerance: expected a part in [2^-40, 1), got {tolerance!r}")
    with evaluator(model, images, labels, batch_size=batch_size, fast=False) as ready:
        model, images, labels = ready.model, ready.images, ready.labels
        right = ~ready.clean_wrong()
        rows = right.nonzero().squeeze(1)
        differences, gamma = empty(ready, right)
        measured = gamma[:, 0].clone()
        rank = torch.zeros_like(right, dtype=torch.long)

        def work(part: slice) -> tuple[Tensor, ...]:
            x, y = images[rows[part]].detach().clone(), labels[rows[part]]
            found = respond(model, x, y, norm)
            known = LinearResponse(y >= 0, found.differences, found.gamma, norm)
            ray = Ray(model, x.detach(), y, found.direction, clip=clip)
            bracket = first_break(ray, known.epsilon, limit, tolerance)
            return found.differences, found.gamma, bracket.high, _rank(bracket, found.order)

        for part, found, _ in in_batches(len(rows), ready.batch_size, work):
            some = rows[part]
            differences[some], gamma[some], measured[some], rank[some] = found
    return Agreement(LinearResponse(right, differences, gamma, norm), measured, rank, limit)


def first_break(ray: Ray, expected: Tensor, limit: float, tolerance: float) -> Bracket:
    """Return brackets of a relative width of ``tolerance`` around where images break first.

    Args:
        ray: images that are right, and their directions.
        expected: ``(N,)`` sizes, infinite or NaN where nothing is.
        limit: the largest size looked at.
        tolerance: as in :func:`compare`.
    """
    every = torch.arange(len(ray.x), device=ray.x.device)
    bracket = Bracket(ray, margin(logits_of(ray.model, ray.x), ray.labels).double())
    moving = (ray.direction != 0).flatten(1).any(dim=1)
    size = (expected.nan_to_num(limit) * START).clamp(FINEST * limit, limit * START)
    bracket.look(every[moving], size[moving])
    start = size.clone()
    down = bracket.high.isfinite()
    while len(rows := (down & (bracket.low == 0) & (start > FINEST * limit)).nonzero().squeeze(1)):
        start[rows] /= GROWTH
        bracket.look(rows, start[rows])
    while len(rows := (moving & bracket.high.isinf() & (bracket.low < limit)).nonzero().squeeze(1)):
        size[rows] = (size[rows] * GROWTH).clamp_max(limit)
        bracket.look(rows, size[rows])
    bracket.narrow(tolerance * bracket.low.clamp_min(FINEST * limit))
    return bracket


def _rank(bracket: Bracket, order: Tensor) -> Tensor:
    """Return ``(N,)``: the rank in ``order`` of the class that is answered at the high ends."""
    logits = logits_of(bracket.ray.model, bracket.images())
    place = (order == logits.argmax(dim=1, keepdim=True)).long().argmax(dim=1) + 1
    return place.masked_fill(bracket.high.isinf() | silent(logits), 0)


def _mean(some: Tensor) -> float:
    return int(some.sum()) / len(some) if len(some) else math.nan


def _ranks(v: Tensor) -> Tensor:
    """Return the rank of each value, equal ones sharing the mean of theirs."""
    _, place, counts = v.unique(return_inverse=True, return_counts=True)
    middle: Tensor = counts.cumsum(0).double() - (counts - 1) / 2
    return middle[place]
