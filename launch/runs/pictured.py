"""Adversarial examples as values, their images as PNG in base64, none larger than a page needs."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

MOST = 160  # pixels along the longer side
TIMES = 10  # what a perturbation is multiplied by


@dataclass(frozen=True)
class Example:
    """One validation image, attacked.

    Attributes:
        label, clean, adversarial: names of classes: the truth, and what the model answers to the
            image and to the adversarial one. They are anybody's text.
        sure, fooled_sure: the probabilities of the two answers.
        pictures: the image, ten times the perturbation around grey, and the adversarial image, as
            PNG in base64.
        size: ``(height, width)`` of the image.
    """

    label: str
    clean: str
    adversarial: str
    sure: float
    fooled_sure: float
    pictures: tuple[str, str, str]
    size: tuple[int, int]

    @property
    def fools(self) -> bool:
        """Whether the model no longer gives the true class."""
        return self.adversarial != self.label


@dataclass(frozen=True)
class Examples:
    """Examples of one trial.

    Attributes:
        number: of the trial.
        attack: in words, with its epsilon.
        epsilon: it.
        found: those that fool it first.
        looked_at, right, broken: validation images that were attacked, how many of them the model
            has right without an attack, and how many of these the attack broke.
    """

    number: int
    attack: str
    epsilon: float
    found: tuple[Example, ...]
    looked_at: int
    right: int
    broken: int


def pictures(image: Tensor, adversarial: Tensor) -> tuple[str, str, str]:
    """Return an image, ten times what was added to it around grey, and the adversarial image.

    Args:
        image, adversarial: ``(C, H, W)`` in [0, 1].
    """
    added = 0.5 + TIMES * (adversarial.double() - image.double())
    return png(image), png(added.clamp(0, 1)), png(adversarial)


def png(image: Tensor) -> str:
    """Return an image ``(C, H, W)`` in [0, 1] as PNG in base64.

    Of three channels it is in colour, of one grey; of another number the mean of them is shown.
    """
    from PIL import Image

    pixels = image.detach().to("cpu", torch.float64).clamp(0, 1)
    if len(pixels) not in (1, 3):
        pixels = pixels.mean(0, keepdim=True)
    array = (255 * pixels).round().byte().permute(1, 2, 0).numpy()
    found = Image.fromarray(np.ascontiguousarray(array[..., 0] if len(pixels) == 1 else array))
    found.thumbnail((MOST, MOST))
    buffer = io.BytesIO()
    found.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()
