"""How far an input may move before its label is likely to change: the Ψ paper's estimate."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metrics.answers import logits_of
from metrics.checks import check_batch_size, check_inputs, check_model
from metrics.precision import full_float32
from metrics.showing import brief
from metrics.susceptibility.normalisation import check_batch_norm, normalising


@dataclass(frozen=True)
class RobustnessRadius:
    """Estimated radii of ``radius`` ``(N,)``: RMS lengths, of pixels in [0, 1]."""

    radius: Tensor

    __repr__ = brief

    @property
    def mean(self) -> float:
        """The mean over the inputs."""
        return self.radius.mean().item()

    @property
    def minimum(self) -> float:
        """The smallest of all inputs."""
        return self.radius.min().item()


def robustness_radius(
    model: nn.Module,
    images: Tensor,
    psi: Tensor | float,
    *,
    batch_norm: str = "eval",
    batch_size: int = 100,
) -> RobustnessRadius:
    """Return the estimated robustness radius of every image.

    An estimate, not a bound: it takes Ψ for the growth of every δ, however long.

    Args:
        model: images to logits ``(N, classes >= 2)``, left as found.
        images: ``(N, C, H, W)``.
        psi: Ψ̂, or one ψ for each image.
        batch_norm: as it was for ``psi``.
        batch_size: images at a time.

    Raises:
        ValueError: fewer than two logits, a ``psi`` of another shape, an unknown ``batch_norm``,
            images or a model that cannot be.
    """
    check_batch_norm(batch_norm)
    check_model(model)
    check_inputs(images)
    batch_size = check_batch_size(batch_size)
    if batch_norm == "batch":
        batch_size = len(images)
    with full_float32(), torch.inference_mode(False), torch.no_grad():
        images = images.detach().clone()
        with normalising(model, images, batch_norm):
            logits = torch.cat([logits_of(model, x) for x in images.split(batch_size)])
    return RobustnessRadius(estimated_radius(logits, psi))


def estimated_radius(logits: Tensor, psi: Tensor | float) -> Tensor:
    """Return ``(N,)`` float64: RMS distance to the nearest decision boundary of logits, over Ψ̂.

    The nearest boundary is where the two largest of n logits meet: (z1 - z2) / sqrt(2 n). The
    paper's worked example prints 0.4703 for a distance of 0.474342; its radius has the latter.

    Raises:
        ValueError: fewer than two logits, or a ``psi`` that is neither one number nor ``(N,)``.
    """
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(f"expected logits (N, classes >= 2), got {tuple(logits.shape)}")
    try:
        psi = psi if isinstance(psi, Tensor) else torch.as_tensor(psi, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"psi: expected a number or a tensor, got {psi!r}") from None
    if psi.numel() != 1 and psi.shape != (len(logits),):
        raise ValueError(
            f"psi: expected one number, or one for each of {len(logits)} images, "
            f"got {tuple(psi.shape)}"
        )
    top = logits.double().topk(2, dim=1).values
    distance = (top[:, 0] - top[:, 1]) / math.sqrt(2 * logits.shape[1])
    return distance / (psi.reshape(()) if psi.numel() == 1 else psi).to(distance)
