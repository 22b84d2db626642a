"""By how much a label stays ahead of every other class, whatever happens within a ball.

A bound above 0 for every other class is a certificate: no image of the ball is given another label.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from metrics.attacks.geometry import check_norm
from metrics.bounds.linear.ball import Ball
from metrics.bounds.linear.enclosure import Enclosure, enclosure, in_chunks
from metrics.bounds.linear.interval import SLACK
from metrics.bounds.linear.rows import Rows, whole_rows
from metrics.bounds.linear.support import supports
from metrics.bounds.linear.transposes import Transposes
from metrics.bounds.operations import Ranking
from metrics.bounds.program import Program
from metrics.checks import check_classes, check_images, check_labels

ROOM = 4_000_000  # values of the steps of all images at a time: 32 MB an array of them


def margins(
    program: Program,
    images: Tensor,
    labels: Tensor,
    norm: str,
    epsilon: float | Tensor,
    *,
    backwards: bool = True,
) -> Tensor:
    """Return lower bounds ``(N, classes)`` of the label's logit minus each other's, in float64.

    They hold for every image of [0, 1] within ``epsilon`` of the given one. The label's own entry
    is infinite; a bound that cannot be computed is minus infinity.

    Args:
        program: one that :func:`supports` takes.
        images: ``(N, C, H, W)`` in [0, 1].
        labels: ``(N,)``.
        norm: ``linf`` or ``l2``.
        epsilon: one length, or ``(N,)``; in the plain norm, not the mean over pixels.
        backwards: False is interval arithmetic alone (Gowal et al. 2018, arXiv 1810.12715).

    Raises:
        ValueError: a program that is not supported, or arguments that do not fit.
    """
    images, labels, lengths = checked(program, images, labels, norm, epsilon)
    transposes = Transposes()
    found = [
        _margins(
            program, Ball(images[part], norm, lengths[part]), labels[part], transposes, backwards
        )
        for part in parts(program, len(images))
    ]
    return torch.cat(found)


def certified(
    program: Program, images: Tensor, labels: Tensor, norm: str, epsilon: float | Tensor
) -> Tensor:
    """Return ``(N,)`` bool: no image of [0, 1] within ``epsilon`` is given another label.

    Args and Raises: as in :func:`margins`.
    """
    return (margins(program, images, labels, norm, epsilon) > 0).all(dim=1)


def checked(
    program: Program, images: Tensor, labels: Tensor, norm: str, epsilon: float | Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return images in float64, labels and lengths ``(N,)``, or raise ValueError."""
    if reason := supports(program):
        raise ValueError(f"linear bounds: {reason}")
    check_norm(norm)
    images = check_images(images).detach().double()
    if tuple(images.shape[1:]) != program.steps[0].shape:
        raise ValueError(
            f"images: expected (N, {', '.join(map(str, program.steps[0].shape))}), "
            f"got {tuple(images.shape)}"
        )
    labels = check_labels(images, labels)
    check_classes(torch.empty(1, program.steps[-1].size), labels)
    lengths = torch.as_tensor(epsilon, dtype=torch.float64, device=images.device)
    if lengths.ndim and tuple(lengths.shape) != (len(images),):
        raise ValueError(f"epsilon: expected one or {len(images)}, got {tuple(lengths.shape)}")
    if not bool((lengths.isfinite() & (lengths >= 0)).all()):
        raise ValueError(f"epsilon: expected lengths >= 0, got {epsilon}")
    return images, labels, lengths.expand(len(images)).detach()


def parts(program: Program, count: int) -> Iterator[slice]:
    """Yield the images that are looked at together."""
    size = max(1, ROOM // sum(step.size for step in program.steps))
    for begin in range(0, count, size):
        yield slice(begin, min(count, begin + size))


def _margins(
    program: Program, ball: Ball, labels: Tensor, transposes: Transposes, backwards: bool
) -> Tensor:
    last = len(program.steps) - 1
    if isinstance(program.steps[last].operation, Ranking):  # what it ranks are logits as well
        (last,) = program.steps[last].sources
    with torch.no_grad():
        found = enclosure(program, ball, transposes, last, backwards=backwards)
        bounds = _interval_margins(found, last, labels)
        if backwards:
            bounds = torch.maximum(bounds, _linear_margins(found, last, labels))
    bounds = bounds.nan_to_num(-torch.inf, -torch.inf, -torch.inf)
    return bounds.scatter(1, labels[:, None], torch.inf)


def _interval_margins(found: Enclosure, last: int, labels: Tensor) -> Tensor:
    logits = found.intervals[last]
    ahead = logits.lower.gather(1, labels[:, None]) - logits.upper
    return ahead - SLACK * logits.magnitude[:, None]


def _linear_margins(found: Enclosure, last: int, labels: Tensor) -> Tensor:
    classes = found.program.steps[last].size
    other = torch.arange(classes, device=labels.device).expand(len(labels), -1)
    owner, against = (other != labels[:, None]).nonzero().unbind(1)

    def make(part: Tensor) -> Rows:
        values = torch.zeros(len(part), classes, dtype=torch.float64, device=part.device)
        count = torch.arange(len(part), device=part.device)
        values[count, labels[owner[part]]] = 1
        values[count, against[part]] = -1
        return whole_rows(values, owner[part])

    bounds = found.ball.images.new_full((len(labels), classes), -torch.inf)
    bounds[owner, against] = in_chunks(found, last, len(owner), make, labels.device)
    return bounds
