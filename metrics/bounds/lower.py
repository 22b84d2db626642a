"""Lower bounds on the smallest perturbation that changes what a model says."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metrics.answers import logits_of, misclassified
from metrics.attacks.geometry import check_norm
from metrics.bounds.chain import Chain, LayerBound
from metrics.bounds.linear import linf_from_l2, supports
from metrics.bounds.linear import radius as linear_radius
from metrics.bounds.program import read
from metrics.checks import check_classes, check_images, check_labels, check_model
from metrics.left_as_found import evaluating
from metrics.precision import full_float32

AUTOMATIC = 1_000  # inputs of ReLUs times ReLUs behind them: a tenth of a second an image or so


@dataclass(frozen=True)
class LowerBounds:
    """What no perturbation shorter than can do.

    Attributes:
        radius: ``(N,)`` float64: no perturbation of this length, in ``norm``, changes the answer;
            0 where it is wrong already.
        norm: ``l2`` or ``linf``, in pixels of [0, 1].
        mode: of the chain of layers.
        linear: ``(N,)`` bool: linear relaxation gave more than the chain, and this radius.
        layers: what each layer did to the bound, from the logits to the images.
    """

    radius: Tensor
    norm: str
    mode: str
    linear: Tensor
    layers: tuple[LayerBound, ...]

    @property
    def certified(self) -> bool:
        """Whether every formula used holds; the printed ones do not everywhere."""
        return all(layer.valid for layer in self.layers)

    def by(self, image: int) -> str:
        """Return which method gave an image's radius."""
        return "linear relaxation" if self.linear[image] else f"layer by layer, {self.mode}"


def lower_bounds(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    norm: str = "l2",
    mode: str = "tight",
    linear: bool | None = None,
) -> LowerBounds:
    """Return for each image a length below which no perturbation changes the answer.

    Args:
        model: images in [0, 1] to logits; left as found.
        images: ``(N, C, H, W)`` float in [0, 1].
        labels: ``(N,)`` true labels.
        norm: ``l2`` or ``linf``.
        mode: ``paper``, as printed (not certified where a printed theorem fails), ``certified``,
            the simplest formulas that hold, or ``tight``, the least of all that do.
        linear: whether to bound by linear relaxation too, and take the better of the two for each
            image; None does in mode ``tight`` where the model is a ReLU net of at most
            ``AUTOMATIC`` (:func:`metrics.bounds.linear.supports` counts).

    Raises:
        ValueError: an unknown norm or mode; a layer whose gain is not known, by its name; linear
            bounds of a model that they are not for; images, labels or a model that do not fit.
    """
    check_norm(norm)
    check_model(model)
    images = check_images(images).detach()
    labels = check_labels(images, labels)
    with full_float32(), torch.inference_mode(False), torch.no_grad(), evaluating(model):
        check_classes(logits_of(model, images[:1]), labels)
        program = read(model, images)
        chain = Chain(program, mode)
        if linear and (why_not := supports(program)):
            raise ValueError(f"linear: {why_not}")
        if linear is None:
            linear = mode == "tight" and not supports(program, AUTOMATIC)
        found = chain.bound(images, labels)
        radius = found.radius
        if norm == "linf":
            radius = linf_from_l2(radius, images[0].numel())
        relaxed = torch.zeros_like(radius)
        if linear:
            relaxed = linear_radius(program, images, labels, norm, lead=found.rounding)
        right = torch.cat(
            [
                ~misclassified(logits_of(model, x), y)
                for x, y in zip(images.split(256), labels.split(256), strict=True)
            ]
        )
    better = right & (relaxed > radius)
    radius = torch.where(better, relaxed, radius).where(right, 0.0)
    return LowerBounds(radius, norm, mode, better, found.layers)
