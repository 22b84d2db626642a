"""What happens to training images before they are attacked: mirrored, shifted, cut out."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from nas.trial.recipe import Recipe


def augment(x: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Return images ``(N, C, H, W)`` augmented, each by draws of its own."""
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
    return x
