"""What every attack is: a frozen value that, called, returns adversarial images.

:meth:`Attack.__call__` does the bookkeeping once: it checks the images, puts the model in
``eval()`` and gives every module its own mode back (also on an exception), and never writes to its
input, to buffers or to ``.grad``. A subclass writes :meth:`Attack.perturb`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from metrics.answers import input_gradient, logits_of, misclassified, useless
from metrics.attacks.geometry import (
    Randomness,
    check_length,
    check_reach,
    length_of,
    own_generator,
)
from metrics.checks import check_batch_size, check_images, check_labels, check_model
from metrics.left_as_found import evaluating
from metrics.precision import full_float32

OUTSIDE = 1e-5  # how far outside its ball rounding may put an attack that projects by itself


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

    def of(self, rows: Tensor) -> Found:
        """Return what was found for these ``rows``; no images where none were kept."""
        images = self.images[rows] if len(self.images) else self.images
        masks = (self.broken, self.zero_gradients, self.nonfinite_gradients)
        return Found(images, *(mask[rows] for mask in masks))


def check_attack(attack: Any) -> None:
    """Raise ValueError for what is no attack."""
    if not isinstance(attack, Attack):
        got = attack.__name__ if isinstance(attack, type) else type(attack).__name__
        raise ValueError(f"attack: expected an attack, such as PGD(steps=20), got {got}")


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """What turns images into adversarial images within ``epsilon``.

    Args:
        epsilon: radius of the ball, in pixels of [0, 1].

    Raises:
        ValueError: epsilon outside [0, 1], or in L2 below 0 or not finite; when called, one above
            the diameter of the images, the root of their number of pixels.
    """

    looks_at_model: ClassVar[bool] = True  # else it is noise alone
    uses_gradients: ClassVar[bool] = True
    draws_by_image: ClassVar[bool] = False  # from a Randomness: batches may then leave images out
    any_length: ClassVar[bool] = False  # of epsilon: the box cuts what is too long
    own_epsilon: ClassVar[bool] = False  # its default is an L2 length, and not an L infinity one
    leaks_labels: ClassVar[bool] = False  # into training images, where it is given the true ones
    as_metric: ClassVar[Mapping[str, Any]] = {}  # defaults of its metric that are not its own
    epsilon: float = 8 / 255

    def __post_init__(self) -> None:
        norm = "l2" if self.any_length else self.distance
        check_length("epsilon", self.epsilon, norm, zero=True)

    def with_epsilon(self, epsilon: float) -> Attack:
        """Return this attack at another epsilon, lengths of its steps in proportion."""
        return replace(self, epsilon=epsilon)

    @property
    def distance(self) -> str:
        """The norm that epsilon is measured in: ``linf`` or ``l2``."""
        return "linf"

    @property
    def towards(self) -> str | None:
        """The class to go towards: ``labels``, ``least-likely``, ``runner-up``, or several
        ``others``, one after the other; None: away."""
        return None

    def __call__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        batch_size: int | None = None,
    ) -> Tensor:
        """Return adversarial images.

        Args:
            model: images in [0, 1] to logits ``(N, classes)``; attacked in ``eval()`` mode and
                left as found.
            images: ``(N, C, H, W)`` float, in [0, 1]; what rounding put outside is put back.
            labels: ``(N,)`` true labels. None takes the labels that the model predicts, which
                keeps single-step training from leaking the label (Kurakin et al. 2017).
            generator: decides every random draw; None takes one that torch's global one seeds.
            batch_size: images at a time, for less memory; None is all of them. The result is the
                same up to rounding where ``draws_by_image`` holds; another attack that uses
                gradients draws for every batch anew, and one that uses none takes all at once.

        Raises:
            ValueError: integer images, values outside [0, 1] or not finite, no images; labels or
                logits that do not fit; a model that cannot be attacked or left as found, such as
                one made under ``inference_mode``.
        """
        check_model(model)
        x = check_images(images)
        size = check_batch_size(batch_size)
        self.check_reach(x)
        labels = None if labels is None else check_labels(images, labels)
        generator = own_generator(generator, x.device)
        with (
            full_float32(autocast=True),
            torch.inference_mode(False),
            torch.enable_grad(),
            evaluating(model),
        ):
            x = x.detach().clone()
            labels = None if labels is None else labels.clone()
            return self.on_ready(model, x, labels, generator, size)

    def on_ready(
        self,
        model: nn.Module,
        x: Tensor,
        labels: Tensor | None,
        generator: torch.Generator,
        batch_size: int | None,
    ) -> Tensor:
        """Do what a call does of what it has checked: images ``x`` of its own, gradients on.

        The model is in ``eval()``, and whatever happens to it is the caller's affair.
        """
        if batch_size is None or len(x) <= batch_size:
            return self.made(self.perturb(model, x, labels, generator), x)
        return self.made(self._in_batches(model, x, labels, generator, batch_size), x)

    def made(self, images: Any, x: Tensor) -> Tensor:
        """Return ``images``, detached; raise ValueError unless they are as many of one kind."""
        fits = isinstance(images, Tensor) and images.shape == x.shape and images.dtype == x.dtype
        if not fits:
            shape = tuple(images.shape) if hasattr(images, "shape") else ""
            raise ValueError(
                f"{type(self).__name__}: expected images {x.dtype} {tuple(x.shape)}, "
                f"got {getattr(images, 'dtype', type(images).__name__)} {shape}"
            )
        return images.detach()  # type: ignore[no-any-return]

    def check_reach(self, images: Tensor) -> None:
        """Raise ValueError where epsilon is further than any two of ``images`` are apart."""
        if not self.any_length:
            check_reach(self.epsilon, self.distance, images)

    @abstractmethod
    def perturb(
        self,
        model: nn.Module,
        x: Tensor,
        labels: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Return adversarial images; the model is in ``eval()`` and gradients are on."""

    def perturb_rows(
        self, model: nn.Module, x: Tensor, labels: Tensor | None, random: Randomness
    ) -> Tensor:
        """Do what :meth:`perturb` does for some rows of a batch, whose random numbers are given.

        An attack that ``draws_by_image`` writes it.
        """
        raise NotImplementedError(f"{type(self).__name__} draws for whole batches")

    def _in_batches(
        self,
        model: nn.Module,
        x: Tensor,
        labels: Tensor | None,
        generator: torch.Generator,
        size: int,
    ) -> Tensor:
        """Return adversarial images, ``size`` at a time, each with the numbers of its place."""
        if not self.draws_by_image and not self.uses_gradients:
            return self.perturb(model, x, labels, generator)
        state, drawn = generator.get_state(), generator
        parts = []
        for rows in torch.arange(len(x), device=x.device).split(size):
            own = None if labels is None else labels[rows]
            if (
                self.draws_by_image
            ):  # every part draws what the whole batch would, and takes its own
                drawn = torch.Generator(generator.device)
                drawn.set_state(state)
                random = Randomness(x[rows], blocks=[(drawn, len(x))], places=rows)
                parts.append(self.perturb_rows(model, x[rows], own, random))
            else:
                parts.append(self.made(self.perturb(model, x[rows], own, generator), x[rows]))
        generator.set_state(drawn.get_state())
        return torch.cat(parts)

    def search(
        self,
        model: nn.Module,
        x: Tensor,
        labels: Tensor,
        random: Randomness,
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
        images = self.made(self.perturb(model, x, labels, random.generator), x)
        far = length_of(images.double() - x.double(), self.distance).max().item()
        if not (far <= self.epsilon + OUTSIDE and images.min() >= 0 and images.max() <= 1):
            raise ValueError(
                f"{type(self).__name__}: expected images in [0, 1] and within epsilon "
                f"{self.epsilon:g} ({self.distance}) of the given ones, got {far:g}"
            )
        return Found(images, misclassified(logits_of(model, images), labels), zero, nonfinite)
