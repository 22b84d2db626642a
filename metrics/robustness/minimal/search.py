"""The state of a search for smallest perturbations: passes left, and the best point so far.

An algorithm proposes images; :class:`Search` looks at them, counts what that costs each image, and
keeps whichever misclassified one is nearest to the image that it came from.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from metrics.answers import answer, gradient_of, logits_of, margin, silent
from metrics.attacks.geometry import column
from metrics.precision import widened

TIE = 2**-21  # of the largest logit: a lead that another batch may round away


class Search:
    """Smallest perturbations of one batch on one model.

    Attributes:
        model: what is asked, in ``eval()``.
        x: ``(N, C, H, W)`` images that it gets right.
        labels: ``(N,)``.
        norm: ``linf`` or ``l2``.
        images: ``(N, C, H, W)``, the best misclassified image so far, else ``x``.
        size: ``(N,)`` float64, its distance; infinity where there is none.
        found_by: ``(N,)`` long, which algorithm found it (:attr:`rung` at that time); -1 for none.
        rung: number of the algorithm that is at work.
        forwards, backwards: ``(N,)`` long, passes that are left to each image.
    """

    def __init__(
        self, model: nn.Module, x: Tensor, labels: Tensor, norm: str, forwards: int, backwards: int
    ) -> None:
        self.model, self.x, self.labels, self.norm = model, x, labels, norm
        self.images = x.clone()
        self.size = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)
        self.found_by = torch.full_like(labels, -1)
        self.rung = 0
        self.forwards = torch.full_like(labels, forwards)
        self.backwards = torch.full_like(labels, backwards)

    @property
    def everything(self) -> Tensor:
        """The numbers of all images, ``(N,)``."""
        return torch.arange(len(self.x), device=self.x.device)

    @property
    def found(self) -> Tensor:
        """The numbers of the images that have a misclassified one."""
        return self.size.isfinite().nonzero().squeeze(1)

    @property
    def missing(self) -> Tensor:
        """The numbers of the images that have none."""
        return self.size.isinf().nonzero().squeeze(1)

    def able(self, rows: Tensor, passes: int) -> Tensor:
        """Return those of ``rows`` that have so many passes left, of either kind."""
        left = torch.minimum(self.forwards[rows], self.backwards[rows])
        return rows[left >= passes]

    def look(self, rows: Tensor, images: Tensor) -> Tensor:
        """Return the logits of ``images``, which belong to ``rows``; one forward pass each."""
        self.forwards[rows] -= 1
        logits = logits_of(self.model, images)
        self._offer(rows, images, logits)
        return logits

    def climb(
        self, rows: Tensor, images: Tensor, loss: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the logits of ``images``, and the gradient there of ``loss`` ``(rows,)`` of them.

        One forward and one backward pass each. What is not finite in the gradient is 0.
        """
        logits, (gradient,) = self.slopes(rows, images, lambda logits: [loss(logits)])
        return logits, gradient.nan_to_num(0, 0, 0)

    def slopes(
        self, rows: Tensor, images: Tensor, losses: Callable[[Tensor], list[Tensor]]
    ) -> tuple[Tensor, list[Tensor]]:
        """Return logits and the gradients, as they are, of several losses: a backward pass each."""
        self.forwards[rows] -= 1
        at = images.detach().requires_grad_()
        logits = answer(self.model, at)
        wanted = losses(logits)
        self.backwards[rows] -= len(wanted)
        gradients = [widened(_gradient(loss, at, keep=loss is not wanted[-1])) for loss in wanted]
        logits = logits.detach()
        self._offer(rows, images, logits)
        return logits, gradients

    def _offer(self, rows: Tensor, images: Tensor, logits: Tensor) -> None:
        broken = lost(logits, self.labels[rows]).nonzero().squeeze(1)
        at, images = rows[broken], images[broken].detach()
        size = distance(images, self.x[at], self.norm)
        better = (size < self.size[at]).nonzero().squeeze(1)
        at = at[better]
        self.images[at], self.size[at] = images[better], size[better]
        self.found_by[at] = self.rung

    def between(self, rows: Tensor, images: Tensor, share: Tensor) -> Tensor:
        """Return the points at ``share`` ``(rows,)`` of the way to ``images``, in the box."""
        x = self.x[rows].double()
        there = x + column(share.double()) * (images.double() - x)
        return there.clamp(0, 1).to(self.x.dtype)


def distance(images: Tensor, x: Tensor, norm: str) -> Tensor:
    """Return ``(N,)`` float64: how far ``images`` are from ``x``, exactly as they are stored."""
    delta = (images.double() - x.double()).flatten(1)
    return delta.abs().amax(dim=1) if norm == "linf" else delta.norm(dim=1)


def lead_of(classes: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Return ``(N,)``: the logits of ``classes`` ``(N,)`` minus the labels'."""
    return (logits.gather(1, classes[:, None]) - logits.gather(1, labels[:, None])).squeeze(1)


def lost(logits: Tensor, labels: Tensor) -> Tensor:
    """Return ``(N,)`` bool: misclassified, and by more than rounding would take back."""
    tie = TIE * logits.where(logits.isfinite(), 0).abs().amax(dim=1)
    return (margin(logits, labels) < -tie) | silent(logits)


def _gradient(loss: Tensor, at: Tensor, *, keep: bool) -> Tensor:
    if keep and loss.requires_grad:
        found = torch.autograd.grad(loss.sum(), at, allow_unused=True, retain_graph=True)[0]
        return torch.zeros_like(at) if found is None else found
    return gradient_of(loss.sum(), at)
