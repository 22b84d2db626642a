"""What happens to training images before they are attacked: mirrored, shifted, cut out."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from nas.trial.recipe import Recipe


def augment(x: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Return images ``(N, C, H, W)`` augmented, each by draws of its own.

    Raises:
        ValueError: a ``cutout`` larger than the images.
    """
    n, _, height, width = x.shape
    if recipe.flip:
        mirror = torch.rand(n, 1, 1, 1, generator=generator, device=generator.device) < 0.5
        x = torch.where(mirror.to(x.device), x.flip(3), x)
    if pad := recipe.crop_padding:
        offsets = torch.randint(
            2 * pad + 1, (2, n), generator=generator, device=generator.device
        ).to(x.device)
        rows = (offsets[0, :, None] + torch.arange(height, device=x.device))[:, None, :, None]
        columns = (offsets[1, :, None] + torch.arange(width, device=x.device))[:, None, None, :]
        samples = torch.arange(n, device=x.device)[:, None, None, None]
        channels = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
        x = functional.pad(x, (pad, pad, pad, pad))[samples, channels, rows, columns]
    return _cut_out(x, recipe.cutout, generator) if recipe.cutout else x


def _cut_out(x: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Return images with a square of 0, whose centre is any pixel: borders may cut it.

    Source: DeVries & Taylor 2017, section 3.2, where 0 is the mean of normalised images; here it is
    black. A square of an even side has its centre right below its middle.
    """
    n, _, height, width = x.shape
    if side > min(height, width):
        raise ValueError(f"cutout: expected at most the {min(height, width)} pixels of a side of "
                         f"the images, got {side}")  # fmt: skip

    def covered(length: int) -> Tensor:
        centres = torch.randint(length, (n, 1), generator=generator, device=generator.device)
        places = torch.arange(length, device=x.device) - (centres.to(x.device) - side // 2)
        return (places >= 0) & (places < side)

    rows, columns = covered(height), covered(width)
    return x.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)
