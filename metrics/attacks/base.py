"""What every attack is: a frozen value that, called, returns adversarial images.

:meth:`Attack.__call__` does the bookkeeping once: it checks the images, puts the model in
``eval()`` and gives every module its own mode back (also on an exception), and never writes to its
input, to buffers or to ``.grad``. A subclass writes :meth:`Attack.perturb`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Found:
    """What a search for misclassified images came to.

    Attributes:
        images: ``(N, C, H, W)``, inside the ball and the box.
        broken: ``(N,)`` bool, those that the model gets wrong.
        zero_gradients: ``(N,)`` bool, images whose first gradient is zero everywhere.
        nonfinite_gradients: the same with a NaN or an infinity in it.
    """

    images: Tensor
    broken: Tensor
    zero_gradients: Tensor
    nonfinite_gradients: Tensor


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module in ``eval()``; give modes and buffers back, also on an exception.

    A buffer can change in ``eval()`` too: a counter, or a batch norm that is told to train.
    """
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, buffer._version, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and not buffer.is_inference()
    ]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for module, name, buffer, version, before in buffers:
            if buffer._version != version:
                with torch.no_grad():
                    buffer.copy_(before)
            if module._buffers[name] is not buffer:
                module._buffers[name] = buffer


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """What turns images into adversarial images within ``epsilon``.

    Args:
        epsilon: radius of the ball, in pixels of [0, 1].

    Raises:
        ValueError: epsilon outside [0, 1].
    """

    uses_gradients: ClassVar[bool] = True
    epsilon: float = 8 / 255

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon <= 1:
            raise ValueError(
                f"epsilon: expected a pixel distance in [0, 1], such as 8/255, got {self.epsilon!r}"
            )

    def with_epsilon(self, epsilon: float) -> Attack:
        """Return this attack at another epsilon, its step size in proportion."""
        step_size = getattr(self, "step_size", None)
        if step_size is None or not self.epsilon:
            return replace(self, epsilon=epsilon)
        step = min(step_size * epsilon / self.epsilon, 1.0)
        scaled: dict[str, Any] = {"step_size": step or None}
        return replace(self, epsilon=epsilon, **scaled)

    @property
    def distance(self) -> str:
        """The norm that epsilon is measured in: ``linf`` or ``l2``."""
        return str(getattr(self, "norm", "linf"))

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
            generator: decides every random draw; None draws from torch's global generator.

        Raises:
            ValueError: integer images, values outside [0, 1] or not finite; labels or logits that
                do not fit; a model that was made under ``inference_mode``.
        """
        check_images(images)
        check_model(model)
        with torch.inference_mode(False), torch.enable_grad(), evaluating(model):
            x = images.detach().clone()
            if labels is not None:
                check_labels(images, labels)
                labels = labels.clone().long()
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

    def search(
        self,
        model: nn.Module,
        x: Tensor,
        labels: Tensor,
        generator: torch.Generator | None,
        *,
        early_exit: bool = True,
    ) -> Found:
        """Return a misclassified image for each of ``x`` that this attack can break.

        With ``early_exit`` an image is broken, and left alone, as soon as any image on its way is
        misclassified; without, if the one that :meth:`perturb` returns is. This default only knows
        the second, and spends a gradient of its own on the counts.
        """
        zero = nonfinite = torch.zeros_like(labels, dtype=torch.bool)
        if self.uses_gradients:
            zero, nonfinite = useless(input_gradient(model, x, labels))
        images = self.perturb(model, x, labels, generator).detach()
        return Found(images, misclassified(logits_of(model, images), labels), zero, nonfinite)


def input_gradient(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return d(sum of cross entropies)/d(images): every image's own gradient, not a mean's.

    Of a loss that does not depend on the images it is zero.
    """
    images = images.detach().requires_grad_()
    logits = model(images.clone()).float()  # of a copy, for a model that writes to its input
    return gradient_of(functional.cross_entropy(logits, labels, reduction="sum"), images)


def gradient_of(value: Tensor, at: Tensor) -> Tensor:
    """Return d(value)/d(at), which is zero where value does not depend on it."""
    if not value.requires_grad:
        return torch.zeros_like(at)
    gradient = torch.autograd.grad(value, at, allow_unused=True)[0]
    return torch.zeros_like(at) if gradient is None else gradient


def useless(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``(N,)`` bool twice: gradients that are zero everywhere, and not finite somewhere."""
    flat = gradient.flatten(1)
    return (flat == 0).all(dim=1), (~flat.isfinite()).any(dim=1)


def misclassified(logits: Tensor, labels: Tensor) -> Tensor:
    """Return ``(N,)`` bool: another class is the largest, or a logit is not finite."""
    return (logits.argmax(dim=1) != labels) | ~logits.isfinite().all(dim=1)


def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    """Return float32 logits without a graph; of a copy, for a model that writes to its input."""
    with torch.no_grad():
        logits: Tensor = model(images.clone())
    return logits.float()


def predicted(model: nn.Module, images: Tensor) -> Tensor:
    """Return the labels ``(N,)`` that the model gives."""
    return logits_of(model, images).argmax(dim=1)


def check_images(images: Tensor) -> None:
    """Raise ValueError unless ``images`` are ``(N, C, H, W)`` floats in [0, 1]."""
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            "images: expected a float tensor (N, C, H, W) in [0, 1], "
            f"got {images.dtype} {tuple(images.shape)}"
        )
    if images.numel():
        low, high = (v.item() for v in images.detach().aminmax())
        if not (low >= 0 and high <= 1):  # NaN fails both comparisons
            raise ValueError(f"images: expected values in [0, 1], got {low:.4g} ... {high:.4g}")


def check_labels(images: Tensor, labels: Tensor) -> None:
    """Raise ValueError unless ``labels`` are one integer class for each image."""
    if labels.is_floating_point() or tuple(labels.shape) != (len(images),):
        raise ValueError(
            f"labels: expected {len(images)} integers, one for each image, "
            f"got {labels.dtype} {tuple(labels.shape)}"
        )
    if labels.device != images.device:
        raise ValueError(f"labels: expected them on {images.device}, got {labels.device}")


def check_model(model: nn.Module) -> None:
    """Raise ValueError for a model that no gradient can be taken through."""
    if any(tensor.is_inference() for tensor in chain(model.parameters(), model.buffers())):
        raise ValueError(
            "model: expected ordinary parameters, got tensors made under torch.inference_mode(), "
            "which have no gradients; build or load the model outside of it"
        )


def check_logits(logits: Tensor, labels: Tensor) -> None:
    """Raise ValueError unless ``logits`` are ``(N, classes)`` with a column for every label."""
    if logits.ndim != 2 or len(logits) != len(labels) or logits.shape[1] < 2:
        raise ValueError(
            f"model: expected logits ({len(labels)}, classes >= 2), got {tuple(logits.shape)}"
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
        raise ValueError(
            f"labels: expected classes 0 ... {logits.shape[1] - 1}, as many as logits, "
            f"got {int(labels.min())} ... {int(labels.max())}"
        )
