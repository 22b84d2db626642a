"""The linear response of logits to a gradient attack, and the epsilon it predicts.

With h the logits, ranked at the image from the largest, J their Jacobian by the pixels and δ the
loss's gradient by the logits, an attack goes along u = Jᵀδ / ‖Jᵀδ‖ (L2) or sign(Jᵀδ) (L infinity),
and changes the logits by ε Γ, Γ = J u. To first order rank j overtakes rank 1 at

    ε̂_j = Δ_1j / (Γ_j - Γ_1),   where Γ_j > Γ_1

and the attack succeeds at the smallest of them. In the mean field, Γ is replaced by its mean over
images, and j by 2. Source: Cubuk et al. 2017 (arXiv 1711.02846), *linear response*.

Γ takes one pass backwards (Jᵀδ) and the derivative of that by δ, which it is linear in: J is never
formed. What torch cannot differentiate twice takes one pass backwards for each class instead.
J is that a little ahead, at x + η u, η about 1e-4 of a pixel: where the pixels of a max-pool's
window are equal, as in a flat background, the logits bend at x itself, and what they do along u is
what they do behind the bend.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metrics.answers import answer, gradient_of, logits_of, margin_loss, temperatures
from metrics.attacks.geometry import check_norm, unit
from metrics.deadline import check
from metrics.engine.evaluator import Evaluator, evaluator
from metrics.engine.memory import in_batches, out_of_memory

TRANSPOSED = 0.01  # share by which Γ · δ may differ from u · Jᵀδ: it is the same number


@dataclass(frozen=True)
class LinearResponse:
    """What a gradient attack does to the logits of each image, to first order.

    Rows of images that the model gets wrong are NaN. Ranks are those of the clean logits, 1 for
    the largest, which is the label's.

    Attributes:
        right: ``(N,)`` bool, the images that the model gets right.
        differences: ``(N, classes - 1)`` float64, Δ_12 ... Δ_1C, ascending; infinite for a class
            whose logit is minus infinity.
        gamma: ``(N, classes)`` float64, Γ_1 ... Γ_C, logits per unit of epsilon.
        norm: of epsilon.
    """

    right: Tensor
    differences: Tensor
    gamma: Tensor
    norm: str

    @property
    def crossings(self) -> Tensor:
        """``(N, classes - 1)``: ε̂_2 ... ε̂_C, infinite where the difference does not shrink."""
        closing = self.gamma[:, 1:] - self.gamma[:, :1]
        return _crossing(self.differences, closing)

    @property
    def epsilon(self) -> Tensor:
        """``(N,)``: the smallest ε̂_j; infinite where the gradient is zero, and nothing moves.

        Elsewhere some difference shrinks: Γ · δ > 0, and δ is -1 for the label and shares of 1
        for the others.
        """
        return self.crossings.amin(dim=1)

    @property
    def first(self) -> Tensor:
        """``(N,)`` long: the rank whose ε̂_j is the smallest, 0 where there is none."""
        smallest, place = self.crossings.min(dim=1)
        return torch.where(smallest.isfinite(), place + 2, 0)

    @property
    def mean_field(self) -> Tensor:
        """``(N,)``: Δ_12 / (⟨Γ_2⟩ - ⟨Γ_1⟩), means over the right images whose Γ is finite."""
        known = self.gamma[self.gamma.isfinite().all(dim=1)]
        mean = known.mean(dim=0)
        return _crossing(self.differences[:, 0], mean[1] - mean[0])


def linear_response(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    norm: str = "l2",
    batch_size: int | None = None,
) -> LinearResponse:
    """Return the response of ``model`` to the gradient attack on each image that it gets right.

    The loss is :func:`metrics.answers.margin_loss`, whose gradient has the cross entropy's
    direction and never saturates (logits of a large spread are divided by it first, as all our
    attacks do). A gradient that is zero, or not finite, moves nothing: Γ is 0 there.

    Args:
        model: images in [0, 1] to logits; left as found, and used itself, not a fast copy.
        images: ``(N, C, H, W)`` float in [0, 1].
        labels: ``(N,)`` true labels.
        norm: ``l2``, with epsilon a Euclidean length, or ``linf``.
        batch_size: images at a time; None is what suits the device.

    Raises:
        ValueError: an unknown norm, and as :func:`metrics.robustness.accuracy.robust_accuracy`.
    """
    check_norm(norm)
    with evaluator(model, images, labels, batch_size=batch_size, fast=False) as ready:
        right = ~ready.clean_wrong()
        rows = right.nonzero().squeeze(1)
        differences, gamma = empty(ready, right)

        def work(part: slice) -> Response:
            x = ready.images[rows[part]].detach().clone()
            return respond(ready.model, x, ready.labels[rows[part]], norm)

        for part, found, _ in in_batches(len(rows), ready.batch_size, work):
            differences[rows[part]], gamma[rows[part]] = found.differences, found.gamma
    return LinearResponse(right, differences, gamma, norm)


@dataclass(frozen=True)
class Response:
    """Of a batch of right images: the line of the attack, and what it does at its beginning.

    Attributes:
        direction: ``(n, C, H, W)``, u.
        order: ``(n, classes)`` long, the classes by rank.
        differences, gamma: as in :class:`LinearResponse`.
    """

    direction: Tensor
    order: Tensor
    differences: Tensor
    gamma: Tensor


def respond(model: nn.Module, x: Tensor, labels: Tensor, norm: str) -> Response:
    """Return the response at images that the model, in ``eval()``, gets right."""
    x = x.requires_grad_()
    logits = answer(model, x)
    clean = logits.detach()
    loose = clean.clone().requires_grad_()
    delta = gradient_of(margin_loss(loose / temperatures(loose), labels).sum(), loose)
    direction, gamma = _response(model, logits, x, delta, norm)
    order = clean.scatter(1, labels[:, None], torch.inf).argsort(
        dim=1, descending=True, stable=True
    )
    ranked = clean.double().gather(1, order)
    return Response(
        direction, order, ranked[:, :1] - ranked[:, 1:], gamma.double().gather(1, order)
    )


def empty(ready: Evaluator, right: Tensor) -> tuple[Tensor, Tensor]:
    """Return differences and Γ of nothing yet, NaN."""
    classes = logits_of(ready.model, ready.images[: ready.batch_size]).shape[1]
    shape = (len(right), classes)
    nothing = torch.full(shape, torch.nan, dtype=torch.float64, device=right.device)
    return nothing[:, 1:].clone(), nothing


def _response(
    model: nn.Module, logits: Tensor, x: Tensor, delta: Tensor, norm: str
) -> tuple[Tensor, Tensor]:
    """Return u and Γ ``(n, classes)``, in the order of the classes."""
    if not logits.requires_grad:
        return torch.zeros_like(x.detach()), torch.zeros_like(delta)
    direction = _along(_vjp(logits, x, delta), norm)
    ahead = (x.detach() + _little(x, norm) * direction).to(x.dtype)
    try:
        x = ahead.clone().requires_grad_()
        cotangent = delta.clone().requires_grad_()
        pulled = _vjp(answer(model, x), x, cotangent, create_graph=True)
        gamma = gradient_of((pulled * direction.to(pulled.dtype)).sum(), cotangent)
        if _transposed(gamma, delta, direction, pulled.detach()):
            return direction, gamma
    except (RuntimeError, NotImplementedError) as error:
        if out_of_memory(error):
            raise  # fewer images at a time may fit
    x = ahead.requires_grad_()  # no graph of the first try is left on it
    logits = answer(model, x)
    rows = []
    for j in range(logits.shape[1]):
        check()
        row = _vjp(logits, x, nn.functional.one_hot(torch.tensor(j), logits.shape[1]).to(delta))
        rows.append((row.double() * direction.double()).flatten(1).sum(dim=1))
    return direction, torch.stack(rows, dim=1)


def _little(x: Tensor, norm: str) -> float:
    """Return how far ahead Γ is taken: the root of a rounding error, in every pixel."""
    step = math.sqrt(torch.finfo(x.dtype).eps) / 4
    return step * (math.sqrt(x[0].numel()) if norm == "l2" else 1)


def _vjp(logits: Tensor, x: Tensor, cotangent: Tensor, *, create_graph: bool = False) -> Tensor:
    found = torch.autograd.grad(
        logits,
        x,
        cotangent.expand_as(logits),
        retain_graph=True,
        create_graph=create_graph,
        allow_unused=True,
    )[0]
    return torch.zeros_like(x) if found is None else found


def _along(gradient: Tensor, norm: str) -> Tensor:
    """Return u; 0 where the gradient says nothing."""
    finite = gradient.nan_to_num(0, 0, 0)
    return finite.sign() if norm == "linf" else unit(finite)


def _transposed(gamma: Tensor, delta: Tensor, direction: Tensor, pulled: Tensor) -> bool:
    """Whether Γ · δ = u · Jᵀδ: a gradient that cannot be differentiated makes Γ zero."""
    here = (gamma.double() * delta.double()).sum(dim=1)
    there = (direction.double() * pulled.double()).flatten(1).sum(dim=1)
    apart = (here - there).abs() > TRANSPOSED * there.abs()
    return not bool((apart & here.isfinite() & there.isfinite()).any())


def _crossing(differences: Tensor, closing: Tensor) -> Tensor:
    """Return Δ / (Γ_j - Γ_1), infinite where Γ_j <= Γ_1; NaN where either is."""
    closing = closing.expand_as(differences)
    shrinks = closing > 0
    crossing = torch.where(shrinks, differences / closing.where(shrinks, 1), torch.inf)
    known = ~(differences.isnan() | closing.isnan()) | differences.isposinf()
    return torch.where(known, crossing, torch.nan)
