"""The Monte Carlo side: how often what a theorem speaks of happens in independent draws.

Four events, of a point x of a class and the classifier f(x) = 0 where x_1 < 0, else 1:

``correct``
    f is right at x.
``susceptible``
    some s, |s| <= size, leads to the other class; s = 0 for a point that is there already.
``noise``
    s, uniform in the ball of radius size, leads there.
``transfer``
    z is another point of the class, and every s that leads x beyond the plane by more than size
    leads z to the other class.

All depend on x_1 (and one coordinate of s or z) alone: :func:`estimate` draws these, and takes
the plane itself for the own side, which matters for a :class:`Point` on it alone.
:func:`estimate_by_vectors` draws all n, and asks f.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from metrics.stability.theory.caps import FloatArray
from metrics.stability.theory.coordinates import vectors

EVENTS = ("correct", "susceptible", "noise", "transfer")


class Model(Protocol):
    """Two classes in R^n, mirror images of each other in the plane x_1 = 0."""

    @property
    def n(self) -> int:
        """The dimension."""

    def outward(self, unit: FloatArray) -> FloatArray:
        """Return how far beyond the plane points lie, negative where f is right.

        Args:
            unit: a coordinate of draws from the unit ball, one a point.
        """

    def points(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return ``(N, n)`` float64 points of the classes ``labels`` ``(N,)``, 0 or 1."""


@dataclass(frozen=True)
class Estimate:
    """How often an event happened.

    Attributes:
        hits: how often.
        draws: of how many.
    """

    hits: int
    draws: int

    @property
    def share(self) -> float:
        """The estimated probability."""
        return self.hits / self.draws

    def sigmas(self, exact: float) -> float:
        """Return how many standard errors the share is from a probability.

        The standard error is √(p (1 - p) / draws), and 1/draws at least: a rare event that
        happened once is no contradiction.
        """
        spread = math.sqrt(max(exact * (1 - exact), 0.0) / self.draws)
        return abs(self.share - exact) / max(spread, 1 / self.draws)


def estimate(model: Model, event: str, size: float, unit: FloatArray) -> Estimate:
    """Return how often the event happened, by the coordinates that it depends on.

    Args:
        model: the two classes.
        event: one of ``EVENTS``.
        size: of the event; ``correct`` has none.
        unit: ``(2, N)`` :func:`coordinates` of the unit ball of R^n: of x, and of s or z.

    Raises:
        ValueError: an unknown event or another shape.
    """
    _check(event)
    if unit.ndim != 2 or unit.shape[0] != 2 or unit.shape[1] < 1:
        raise ValueError(f"unit: expected coordinates (2, N), got {unit.shape}")
    x = model.outward(unit[0])
    if event == "correct":
        happened = x < 0
    elif event == "susceptible":
        happened = x + size >= 0
    elif event == "noise":
        happened = x + size * unit[1] > 0
    else:
        happened = x - model.outward(unit[1]) <= size
    return Estimate(int(np.count_nonzero(happened)), unit.shape[1])


def estimate_by_vectors(
    model: Model, event: str, size: float, draws: int, generator: torch.Generator
) -> Estimate:
    """Return how often the event happened, by whole vectors of both classes and the classifier.

    Raises:
        ValueError: an unknown event.
    """
    _check(event)
    labels = torch.randint(2, (draws,), generator=generator, device=generator.device)
    x = model.points(labels, generator)
    if event == "correct":
        happened = classified(x) == labels
    elif event == "susceptible":
        attacked = x + size * attack_direction(labels, model.n)
        happened = (classified(x) != labels) | (classified(attacked) != labels)
    elif event == "noise":
        happened = classified(x + size * vectors(model.n, draws, generator)) != labels
    else:
        # The shortest of the s that lead x beyond by more than size leads z the least far: it
        # stands for all of them.
        direction = attack_direction(labels, model.n)
        beyond = (x * direction).sum(dim=1, keepdim=True)
        z = model.points(labels, generator)
        happened = classified(z + (size - beyond) * direction) != labels
    return Estimate(int(happened.sum()), draws)


def classified(x: Tensor) -> Tensor:
    """Return f(x) ``(N,)``: 0 where x_1 < 0, else 1."""
    return (x[:, 0] >= 0).long()


def attack_direction(labels: Tensor, n: int) -> Tensor:
    """Return (1 - 2l) e_1 ``(N, n)``, the direction that leads to the other class fastest.

    Theorem 7: a smooth increasing stand-in for f has a loss whose gradient is a positive multiple
    of it, with probability 1. The paper's proof asks for less than it needs (a strictly increasing
    C¹ function may have derivative 0 on a set of positive measure); it is right where the
    derivatives of the loss and of the stand-in are positive almost everywhere, as they are for a
    sigmoid. In float32 a sigmoid saturates, and the gradient is 0 far from the plane.
    """
    direction = torch.zeros(len(labels), n, dtype=torch.float64, device=labels.device)
    direction[:, 0] = (1 - 2 * labels).double()
    return direction


def _check(event: str) -> None:
    if event not in EVENTS:
        raise ValueError(f"event: expected one of {list(EVENTS)}, got {event!r}")
