"""Images as PNG in base64, to stand in a page: in colour or grey, none larger than a page needs."""

from __future__ import annotations

import base64
import io

import numpy as np
import torch
from torch import Tensor

MOST = 160  # pixels along the longer side
TIMES = 10  # what a perturbation is multiplied by


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
