"""Training on random noise: an additive layer before the model, active in training only.

Source: Sutton et al. 2023 (arXiv 2309.03665), section 7: fresh noise at every presentation, uniform
in a cube, or in the ball of the same average length. Unlike the attack ``noise`` it is not clipped
to [0, 1]: there is no image to be shown, and a clipped half of it would shift dark pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from metrics.attacks import Attack
from metrics.attacks.geometry import Randomness, in_ball


@dataclass(frozen=True, kw_only=True)
class NoiseCube(Attack):
    """Noise from U[-ε, ε] in every pixel, not clipped: for training.

    Args:
        epsilon: half the side of the cube, in pixels of [0, 1].
    """

    uses_gradients: ClassVar[bool] = False

    def perturb(
        self,
        model: nn.Module,
        x: Tensor,
        labels: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        noise = in_ball(tuple(x.shape[1:]), "linf", Randomness(x, generator))
        return (x + self.epsilon * noise).to(x.dtype)


@dataclass(frozen=True, kw_only=True)
class NoiseBall(Attack):
    """Noise from the ball that is as long as that of the cube of half side ε: for training.

    Args:
        epsilon: half the side of the cube of the same length, in pixels of [0, 1].
    """

    uses_gradients: ClassVar[bool] = False

    def perturb(
        self,
        model: nn.Module,
        x: Tensor,
        labels: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        noise = in_ball(tuple(x.shape[1:]), "l2", Randomness(x, generator))
        return (x + noise_length(self.epsilon, x[0].numel()) * noise).to(x.dtype)


def noise_length(epsilon: float, pixels: int) -> float:
    """Return ε √(n/3): the root mean square length of noise in the cube, the radius of the ball."""
    return epsilon * math.sqrt(pixels / 3)


INPUT_NOISE: dict[str, type[Attack]] = {"noise-cube": NoiseCube, "noise-ball": NoiseBall}
"""The names that a recipe's adversary has for them."""
