"""Attacks as values: ``PGD(epsilon=8/255, step_size=2/255, steps=7)(model, x, y) -> x_adv``.

One loop, :func:`ascend`, serves them all: FGSM is PGD with one step of size epsilon and no random
start, and step-l.l. is FGSM towards the least likely class. :meth:`Attack.__call__` does the
bookkeeping once: it checks the images, puts the model in ``eval()`` and restores every module's
own mode (also on an exception), and never writes to its input, the buffers or ``.grad``.

Sources: Goodfellow et al. 2015 (FGSM), Kurakin et al. 2017 (step-l.l.), Madry et al. 2018 (PGD).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

NORMS = ("linf", "l2")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module in ``eval()`` and give each its own mode back, also on an exception."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """What turns images into adversarial images within ``epsilon``.

    Args:
        epsilon: radius of the ball, in pixels of [0, 1].

    Raises:
        ValueError: epsilon outside [0, 1].
    """

    epsilon: float = 8 / 255

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon <= 1:
            raise ValueError(
                f"epsilon: expected a pixel distance in [0, 1], such as 8/255, got {self.epsilon!r}"
            )

    def __call__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return adversarial images.

        Args:
            model: images in [0, 1] to logits ``(N, classes)``; attacked in ``eval()`` mode and
                left as found.
            images: ``(N, C, H, W)`` float, in [0, 1].
            labels: ``(N,)`` true labels. None takes the labels that the model predicts, which
                keeps single-step training from leaking the label (Kurakin et al. 2017).
            generator: decides random starts; None draws from torch's global generator.

        Raises:
            ValueError: integer images, values outside [0, 1] or not finite.
        """
        _check_images(images)
        with torch.inference_mode(False), torch.enable_grad(), evaluating(model):
            x = images.detach().clone()
            if labels is not None and labels.is_inference():
                labels = labels.clone()
            return self.perturb(model, x, labels, generator).detach()

    @abstractmethod
    def perturb(
        self,
        model: nn.Module,
        x: Tensor,
        labels: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Return adversarial images; the model is in ``eval()`` and gradients are on."""


@dataclass(frozen=True, kw_only=True)
class FGSM(Attack):
    """Fast gradient (sign) method: one step of length epsilon, no random start.

    Args:
        epsilon: length of the step.
        norm: ``linf`` takes the sign of the gradient, ``l2`` the unit gradient.
    """

    norm: str = "linf"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_norm(self.norm)

    def perturb(
        self,
        model: nn.Module,
        x: Tensor,
        labels: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        labels = predicted(model, x) if labels is None else labels
        return ascend(model, x, x, labels, self.norm, self.epsilon, self.epsilon, steps=1)


@dataclass(frozen=True, kw_only=True)
class StepLL(Attack):
    """Single step towards the least likely class of the clean logits; labels play no part.

    x_adv = clip(x - epsilon sign(grad loss(x, argmin logits(x)))), Kurakin et al. 2017.
    """

    def perturb(
        self,
        model: nn.Module,
        x: Tensor,
        labels: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        least_likely = logits_of(model, x).argmin(dim=1)
        return ascend(
            model, x, x, least_likely, "linf", self.epsilon, self.epsilon, steps=1, towards=True
        )


@dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """Projected gradient ascent on the cross entropy; the last iterate is returned.

    Args:
        epsilon: radius of the ball.
        step_size: length of one step, in the same norm; None is epsilon / 4.
        steps: number of steps.
        norm: ``linf`` or ``l2``.
        random_start: begin uniformly in the ball instead of at the image.
        restarts: how often to begin; of each image the start that fooled the model is kept, else
            the one with the larger loss.

    Raises:
        ValueError: epsilon or step_size outside [0, 1], steps or restarts below 1, unknown norm.
    """

    step_size: float | None = None
    steps: int = 7
    norm: str = "linf"
    random_start: bool = True
    restarts: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_norm(self.norm)
        if self.step_size is not None and not 0 < self.step_size <= 1:
            raise ValueError(
                "step_size: expected a pixel distance in (0, 1], such as 2/255, "
                f"got {self.step_size!r}"
            )
        for field in ("steps", "restarts"):
            if getattr(self, field) < 1:
                raise ValueError(f"expected {field} >= 1, got {getattr(self, field)}")

    def perturb(
        self,
        model: nn.Module,
        x: Tensor,
        labels: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        labels = predicted(model, x) if labels is None else labels
        step_size = self.epsilon / 4 if self.step_size is None else self.step_size
        found = x
        strength = torch.full_like(labels, -torch.inf, dtype=torch.float32)
        for _ in range(self.restarts):
            start = uniform_in_ball(x, self.norm, self.epsilon, generator)
            adversarial = ascend(
                model,
                x,
                start if self.random_start else x,
                labels,
                self.norm,
                self.epsilon,
                step_size,
                steps=self.steps,
            )
            if self.restarts == 1:
                return adversarial
            logits = logits_of(model, adversarial)
            loss = functional.cross_entropy(logits, labels, reduction="none")
            fooled = (logits.argmax(dim=1) != labels) | ~logits.isfinite().all(dim=1)
            new = loss.masked_fill(fooled, torch.inf)
            stronger = new > strength
            found = torch.where(stronger.view(-1, 1, 1, 1), adversarial, found)
            strength = torch.where(stronger, new, strength)
        return found


def ascend(
    model: nn.Module,
    x: Tensor,
    start: Tensor,
    labels: Tensor,
    norm: str,
    epsilon: float,
    step_size: float,
    *,
    steps: int,
    towards: bool = False,
) -> Tensor:
    """Return the last iterate of projected gradient steps from ``start``.

    Each step goes up the cross entropy of ``labels`` (down it when ``towards``), then into the
    ball of ``epsilon`` around ``x``, then into the box [0, 1].
    """
    adversarial = start
    for _ in range(steps):
        gradient = input_gradient(model, adversarial, labels)
        direction = gradient.sign() if norm == "linf" else unit(gradient)
        step = -step_size if towards else step_size
        moved = (adversarial.detach() + step * direction) - x
        adversarial = (x + project(moved, norm, epsilon)).clamp_(0, 1)
    return adversarial


def input_gradient(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return d(sum of cross entropies)/d(images): every image's own gradient, not a mean's.

    Of a loss that does not depend on the images it is zero.
    """
    images = images.detach().requires_grad_()
    loss = functional.cross_entropy(model(images).float(), labels, reduction="sum")
    return gradient_of(loss, images)


def gradient_of(value: Tensor, at: Tensor) -> Tensor:
    """Return d(value)/d(at), which is zero where value does not depend on it."""
    if not value.requires_grad:
        return torch.zeros_like(at)
    gradient = torch.autograd.grad(value, at, allow_unused=True)[0]
    return torch.zeros_like(at) if gradient is None else gradient


def project(delta: Tensor, norm: str, epsilon: float) -> Tensor:
    """Return ``delta`` moved to the nearest point of the ball of radius ``epsilon``."""
    if norm == "linf":
        return delta.clamp(-epsilon, epsilon)
    length = delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return torch.where(length > epsilon, delta * (epsilon / length.clamp_min(1e-30)), delta)


def uniform_in_ball(
    x: Tensor, norm: str, epsilon: float, generator: torch.Generator | None
) -> Tensor:
    """Return ``x`` plus a uniform draw from the ball, clipped to [0, 1].

    The L2 draw is direction * U^(1/n), which is uniform in volume.
    """
    device = x.device if generator is None else generator.device
    if norm == "linf":
        noise = torch.rand(x.shape, generator=generator, device=device, dtype=x.dtype)
        delta = (2 * noise - 1) * epsilon
    else:
        noise = torch.randn(x.shape, generator=generator, device=device, dtype=x.dtype)
        share = torch.rand(len(x), 1, 1, 1, generator=generator, device=device, dtype=x.dtype)
        delta = unit(noise) * epsilon * share ** (1 / x[0].numel())
    return (x + delta.to(x.device)).clamp_(0, 1)


def unit(v: Tensor) -> Tensor:
    """Return each sample of ``v`` at Euclidean length 1; a zero one stays zero."""
    length: Tensor = v.flatten(1).norm(dim=1)
    return v / length.clamp_min(1e-30).view(-1, 1, 1, 1)


def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    """Return float32 logits without a graph."""
    with torch.no_grad():
        logits: Tensor = model(images)
    return logits.float()


def predicted(model: nn.Module, images: Tensor) -> Tensor:
    """Return the labels ``(N,)`` that the model gives."""
    return logits_of(model, images).argmax(dim=1)


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            "images: expected a float tensor (N, C, H, W) in [0, 1], "
            f"got {images.dtype} {tuple(images.shape)}"
        )
    if images.numel():
        low, high = (v.item() for v in images.detach().aminmax())
        if not (low >= 0 and high <= 1):  # NaN fails both comparisons
            raise ValueError(f"images: expected values in [0, 1], got {low:.4g} ... {high:.4g}")


def _check_norm(norm: str) -> None:
    if norm not in NORMS:
        raise ValueError(f"norm: expected one of {list(NORMS)}, got {norm!r}")
