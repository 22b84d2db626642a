"""The largest radius around each image for which linear bounds are a certificate."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from metrics.bounds.linear.worst_margins import checked, margins
from metrics.bounds.program import Program
from metrics.checks import check_integers

PROBE = 1e-5  # of the limit: so near that hardly any ReLU changes its side
BEYOND = 1.01  # of where the straight line ends: the probe is rounded


def radius(
    program: Program,
    images: Tensor,
    labels: Tensor,
    norm: str,
    limit: float | None = None,
    *,
    evaluations: int = 10,
) -> Tensor:
    """Return radii ``(N,)`` within which no image of [0, 1] is given another label, in float64.

    Each was certified itself; 0 where none was, as for an image that is given another label as it
    is. Bounds are computed ``evaluations`` times: for the images themselves; very near to them,
    from where the margins are followed in a straight line to 0; and then by bisection from there
    down. So what is returned lies within 2^-(evaluations - 2) of that length of a radius that could
    not be certified, unless all of the length could.

    Args:
        program, images, labels, norm: as in :func:`metrics.bounds.linear.margins`.
        limit: the largest radius that is tried; None is the length that reaches all of [0, 1].
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
    here = margins(program, images, labels, norm, 0.0)
    left = (here > 0).all(dim=1).nonzero().squeeze(1)  # which images are looked at
    found = torch.zeros_like(low)
    if not len(left):
        return found
    images, labels, here = images[left], labels[left], here[left]
    probe = PROBE * limit
    near = margins(program, images, labels, norm, probe)
    high = (BEYOND * _reach(here, near, probe)).clamp(max=limit)
    low = torch.where((near > 0).all(dim=1), probe, 0.0)
    high = torch.maximum(high, low)
    for _ in range(evaluations - 2):
        middle = (low + high) / 2
        holds = (margins(program, images, labels, norm, middle) > 0).all(dim=1)
        low, high = torch.where(holds, middle, low), torch.where(holds, high, middle)
    found[left] = low
    return found


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
