"""The smallest perturbation, along one gradient, that breaks an image.

Both searches take one gradient at the image and then only look forwards; both return a
perturbation that the model was seen to get wrong, so its size is an *upper bound* on the distance
to the decision boundary, never the distance. Sources: Peck et al. 2017, section 5 (FGSM, bisection
over epsilon); Sutton et al. 2023 (arXiv 2309.03665), section 7 (the L2 gradient, 256 equally
spaced scalings).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from metrics.answers import (
    answer,
    gradient_of,
    margin,
    margin_loss,
    temperatures,
    useless,
)
from metrics.attacks.geometry import check_length, unit
from metrics.checks import check_integers
from metrics.engine.evaluator import Evaluator, evaluator
from metrics.engine.memory import in_batches
from metrics.robustness.bracket import Ray, close
from metrics.showing import brief

MODES = ("cross-entropy", "margin", "loss")
FINEST = 2**-40  # of the limit: a bracket that float64 still halves
SCALINGS_AT_ONCE = 16

_Point = tuple[Tensor, Tensor, Tensor, Tensor]
"""Sizes, images, which gradients are zero, which are not finite."""


@dataclass(frozen=True)
class Smallest:
    """The smallest perturbations that were seen to break images.

    Attributes:
        size: ``(N,)`` float64: epsilon of the sign step, or the L2 length of the scaled gradient
            (before clipping); 0 for images that are wrong already, infinity where none was found.
        images: ``(N, C, H, W)``, misclassified where ``size`` is finite, else as given.
        zero_gradients: right images whose gradient is zero everywhere: none can be found for them.
        nonfinite_gradients: right images with a NaN or an infinity in it, taken for zero there.
        forwards, backwards: images that went through the model, and whose gradient came back.
    """

    size: Tensor
    images: Tensor
    zero_gradients: int
    nonfinite_gradients: int
    forwards: int
    backwards: int

    __repr__ = brief


def minimal_fgsm(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    limit: float = 100 / 255,
    tolerance: float = 0.1 / 255,
    batch_size: int | None = None,
    fast: bool = True,
) -> Smallest:
    """Return for each image the smallest epsilon at which x + epsilon sign(gradient) breaks it.

    The sign is taken once. Epsilon grows from limit / 16, by 1.5 to 4 times as the margin of the
    logits suggests, until the image breaks; the bracket is then closed by ITP, a bisection that
    interpolates (Oliveira and Takahashi 2020). Breaking need not be monotone in epsilon: a smaller
    epsilon may break the image too.

    Args:
        model: images in [0, 1] to logits; left as found.
        images: ``(N, C, H, W)`` float in [0, 1].
        labels: ``(N,)`` true labels.
        limit: the largest epsilon tried.
        tolerance: an epsilon smaller by this did not break the image; at least 2^-40 of the limit,
            below which float64 cannot close a bracket.
        batch_size: images at a time; None is what suits the device.
        fast: as in :func:`metrics.robustness.accuracy.robust_accuracy`.

    Raises:
        ValueError: tolerance or limit out of range, and as :func:`robust_accuracy`.
    """
    check_length("tolerance", tolerance, "linf", zero=False)
    check_length("limit", limit, "linf", zero=False)
    if not 0 < tolerance <= limit <= 1:
        raise ValueError(f"expected 0 < tolerance <= limit <= 1, got {tolerance} and {limit}")
    tolerance = max(tolerance, FINEST * limit)

    def along(model: nn.Module, x: Tensor, y: Tensor) -> _Point:
        gradient, margins = _gradient(model, x, y, "cross-entropy")
        ray = Ray(model, x, y, gradient.nan_to_num(0, 0, 0).sign_(), clip=True)
        return *close(ray, margins, limit, tolerance), *useless(gradient)

    return _smallest(model, images, labels, along, batch_size=batch_size, fast=fast)


def gradient_line(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    mode: str = "cross-entropy",
    length: float = 5.0,
    scalings: int = 256,
    clip: bool = False,
    batch_size: int | None = None,
    fast: bool = True,
) -> Smallest:
    """Return for each image the smallest of equally spaced L2 lengths at which it breaks.

    The perturbation is a scaling s of the unit gradient, s in linspace(0, ``length``,
    ``scalings``), L2 in pixels of [0, 1] (Sutton et al., section 7: 256 scalings).

    Args:
        model, images, labels, batch_size, fast: as in :func:`minimal_fgsm`.
        mode: ``cross-entropy`` goes where the gradient of the cross entropy points, to all other
            classes by their probabilities (:func:`metrics.answers.margin_loss`); ``margin`` where
            that of the largest other logit minus the label's does, for two classes the same.
            ``loss`` takes the gradient as the paper prints it, of the mean squared error on a
            sigmoid for two classes and of the cross entropy for more; float32 rounds it to zero
            where a label leads by far (by 17 for the second of two classes), and such images
            count in ``zero_gradients``.
        length: the longest, inclusive.
        scalings: how many, 0 included.
        clip: put the perturbed image back into [0, 1]; the paper does not say that it does.

    Raises:
        ValueError: an unknown mode, length <= 0, scalings below 2, and as :func:`robust_accuracy`.
    """
    check_line(mode=mode, length=length, scalings=scalings)

    def along(model: nn.Module, x: Tensor, y: Tensor) -> _Point:
        gradient, _ = _gradient(model, x, y, mode)
        ray = Ray(model, x, y, unit(gradient.nan_to_num(0, 0, 0)), clip=clip)
        return *_first_scaling(ray, length, scalings), *useless(gradient)

    return _smallest(model, images, labels, along, batch_size=batch_size, fast=fast)


def check_line(*, mode: str, length: float, scalings: int) -> None:
    """Raise ValueError for settings that :func:`gradient_line` refuses."""
    check_integers(scalings=scalings)
    if mode not in MODES:
        raise ValueError(f"mode: expected one of {list(MODES)}, got {mode!r}")
    if not (length > 0 and math.isfinite(length)) or scalings < 2:
        raise ValueError(f"expected length > 0 and scalings >= 2, got {length} and {scalings}")


def _gradient(model: nn.Module, x: Tensor, labels: Tensor, mode: str) -> tuple[Tensor, Tensor]:
    """Return the gradient to go up, and the margins ``(N,)`` float64 at ``x``."""
    x = x.detach().requires_grad_()
    logits = answer(model, x)
    margins = margin(logits, labels)
    if mode == "loss":
        loss = _printed_loss(logits, labels)
    elif mode == "margin":
        loss = -margins
    else:
        loss = margin_loss(logits / temperatures(logits), labels)
    return gradient_of(loss.sum(), x), margins.detach().double()


def _printed_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return ``(N,)``: what a net is trained with in Sutton et al., section 7."""
    if logits.shape[1] == 2:
        return ((logits[:, 1] - logits[:, 0]).sigmoid() - labels).square()
    return functional.cross_entropy(logits, labels, reduction="none")


def _first_scaling(ray: Ray, length: float, scalings: int) -> tuple[Tensor, Tensor]:
    """Return ``(N,)`` sizes (infinity where none breaks) and the images there."""
    sizes = torch.full((len(ray.x),), torch.inf, dtype=torch.float64, device=ray.x.device)
    grid = torch.linspace(0, length, scalings, dtype=torch.float64, device=ray.x.device)[1:]
    moving = ~useless(ray.direction)[0]
    for some in grid.split(min(SCALINGS_AT_ONCE, len(ray.x))):
        left = (sizes.isinf() & moving).nonzero().squeeze(1)
        for rows in left.split(max(1, len(ray.x) // len(some))):  # a batch at a time
            sizes[rows] = _first_of(ray, rows, some)
    found = sizes.isfinite().nonzero().squeeze(1)
    images = ray.x.clone()
    images[found] = ray.images(found, sizes[found])
    return sizes, images


def _first_of(ray: Ray, rows: Tensor, scalings: Tensor) -> Tensor:
    """Return ``(len(rows),)``: the first of ``scalings`` that breaks, else infinity."""
    if len(rows) == 0:
        return scalings[:0]
    every = rows.repeat_interleave(len(scalings))
    margins = ray.margins(every, scalings.repeat(len(rows))).view(len(rows), len(scalings))
    broke = margins < 0
    return torch.where(broke.any(dim=1), scalings[broke.int().argmax(dim=1)], torch.inf)


def _smallest(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    along: Callable[[nn.Module, Tensor, Tensor], _Point],
    *,
    batch_size: int | None,
    fast: bool,
) -> Smallest:
    with evaluator(model, images, labels, batch_size=batch_size, fast=fast) as ready:
        images, labels = ready.images, ready.labels
        wrong = ready.clean_wrong()
        size = torch.where(wrong, 0.0, torch.inf).double()
        adversarial = images.detach().clone()
        zeros = nonfinites = 0
        right = (~wrong).nonzero().squeeze(1)

        def search(part: slice) -> _Point:
            rows = right[part]
            return _verified(ready, along, images[rows].detach().clone(), labels[rows])

        for part, point, most in in_batches(len(right), ready.batch_size, search):
            rows = right[part]
            size[rows], adversarial[rows], zero, nonfinite = point
            zeros += int(zero.sum())
            nonfinites += int(nonfinite.sum())
            ready.batch_size = most
    spent = ready.spent
    return Smallest(size, adversarial, zeros, nonfinites, spent.forwards, spent.backwards)


def _verified(
    ready: Evaluator,
    along: Callable[[nn.Module, Tensor, Tensor], _Point],
    x: Tensor,
    labels: Tensor,
) -> _Point:
    """Search on the fast copy; what the model itself gets right is searched on the model."""
    size, images, zero, nonfinite = along(ready.quick, x, labels)
    if ready.quick is not ready.model:
        found = size.isfinite().nonzero().squeeze(1)
        rounded = found[~ready.wrong(images[found], labels[found])]
        if len(rounded):
            again = along(ready.model, x[rounded], labels[rounded])
            size[rounded], images[rounded] = again[:2]
    return size, images, zero, nonfinite
