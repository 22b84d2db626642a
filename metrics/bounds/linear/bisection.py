"""The largest radius around each image for which linear bounds are a certificate."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from metrics.bounds.linear.worst_margins import checked, margins
from metrics.bounds.program import Program
from metrics.checks import check_integers

PROBE = 1e-5  # of the limit: so near that hardly any ReLU changes its side
INNER = 0.35  # of a bracket: how far inside the next point lies
ALMOST = 0.9
WORST = 1e300  # for a margin that cannot be computed
BEYOND = 1.01  # of where the straight line ends: the probe is rounded


def radius(
    program: Program,
    images: Tensor,
    labels: Tensor,
    norm: str,
    limit: float | None = None,
    *,
    lead: float | Tensor = 0.0,
    evaluations: int = 8,
) -> Tensor:
    """Return radii ``(N,)`` within which no image of [0, 1] is given another label, in float64.

    Each was certified itself; 0 where none was, as for an image that is given another label as it
    is. Bounds are computed ``evaluations`` times: for the images themselves; very near to them,
    from where the margins are followed in a straight line to 0; and then by a bisection from there
    down that interpolates. So what is returned lies within 0.65^(evaluations - 2) of that length of
    a radius that could not be certified, unless all of the length could; with 8 of a net on digits,
    at .99 of what 16 give (median of 14 images, the lowest .91).

    Args:
        program, images, labels, norm: as in :func:`metrics.bounds.linear.margins`.
        limit: the largest radius that is tried; None is the length that reaches all of [0, 1].
        lead: by how much a label has to stay ahead, one or ``(N,)``: what rounding may take.
        evaluations: at least 3.

    Raises:
        ValueError: as there; a limit that is not above 0, or fewer evaluations.
    """
    check_integers(evaluations=evaluations)
    if evaluations < 3:
        raise ValueError(f"evaluations: expected at least 3, got {evaluations}")
    farthest = 1.0 if norm == "linf" else math.sqrt(program.steps[0].size)
    limit = farthest if limit is None else float(limit)
    if not 0 < limit < math.inf:
        raise ValueError(f"limit: expected a length above 0, got {limit}")
    images, labels, low = checked(program, images, labels, norm, 0.0)
    lead = torch.as_tensor(lead).to(low).expand(len(images))[:, None]
    here = margins(program, images, labels, norm, 0.0) - lead
    left = (here > 0).all(dim=1).nonzero().squeeze(1)  # which images are looked at
    found = torch.zeros_like(low)
    if not len(left):
        return found
    images, labels, here, lead = images[left], labels[left], here[left], lead[left]
    probe = PROBE * limit
    near = margins(program, images, labels, norm, probe) - lead
    high = (BEYOND * _reach(here, near, probe)).clamp(max=limit)
    low = torch.where((near > 0).all(dim=1), probe, 0.0)
    high = torch.maximum(high, low)
    above, below = near.amin(1).clamp_min(0), torch.full_like(low, torch.nan)
    for _ in range(evaluations - 2):
        middle = _between(low, high, above, below, first=low <= probe)
        worst = (margins(program, images, labels, norm, middle) - lead).amin(1)
        holds = worst > 0
        low, above = torch.where(holds, middle, low), torch.where(holds, worst, above)
        below = torch.where(holds, below, worst.nan_to_num(0, 0, -WORST))
        high = torch.where(holds, high, middle)
    found[left] = low
    return found


def _between(low: Tensor, high: Tensor, above: Tensor, below: Tensor, first: Tensor) -> Tensor:
    """Return the next radii: where a straight line between the worst margins at both ends meets 0.

    But a point in the middle third, since margins bend downwards. Where no radius failed yet, the
    middle is looked at ``first``, and then, as this net hardly bends, almost the upper end.
    """
    share = (above / (above - below)).clamp(INNER, 1 - INNER)
    blind = torch.where(first, 0.5, ALMOST)
    return low + torch.where(below.isfinite(), share, blind) * (high - low)


def _reach(here: Tensor, near: Tensor, probe: float) -> Tensor:
    """Return where straight lines from margins ``here`` through those at ``probe`` first meet 0."""
    slope = ((here - near) / probe).nan_to_num(0.0, torch.inf, 0.0)  # the label's own: no slope
    return (here / slope.clamp_min(torch.finfo(torch.float64).tiny)).amin(1)


def l2_from_linf(radii: Tensor) -> Tensor:
    """Return L2 radii that L infinity radii certify: the same, as |d|_inf <= |d|_2."""
    return radii


def linf_from_l2(radii: Tensor, size: int) -> Tensor:
    """Return L infinity radii that L2 radii certify over ``size`` pixels and channels.

    They are divided by sqrt(size), as |d|_2 <= sqrt(size) |d|_inf, and rounded down.

    Raises:
        ValueError: a size below 1.
    """
    if size < 1:
        raise ValueError(f"size: expected at least 1, got {size}")
    return radii / math.sqrt(size) * (1 - 2**-50)
