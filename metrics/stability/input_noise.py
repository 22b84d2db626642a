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
class InputNoise(Attack):
    """Uniform noise that is not clipped, fresh at every call; the model plays no part.

    Args:
        epsilon: half the side of the cube, in pixels of [0, 1]; a ball is as long as that cube.
    """

    looks_at_model: ClassVar[bool] = False
    uses_gradients: ClassVar[bool] = False
    ball: ClassVar[str]  # the norm whose ball it fills

    def perturb(
        self,
        model: nn.Module,
        x: Tensor,
        labels: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        noise = in_ball(tuple(x.shape[1:]), self.ball, Randomness(x, generator))
        reach = self.epsilon if self.ball == "linf" else noise_length(self.epsilon, x[0].numel())
        return (x + reach * noise).to(x.dtype)


@dataclass(frozen=True, kw_only=True)
class NoiseCube(InputNoise):
    """Noise from U[-ε, ε] in every pixel, not clipped: for training."""

    ball: ClassVar[str] = "linf"


@dataclass(frozen=True, kw_only=True)
class NoiseBall(InputNoise):
    """Noise from the ball that is as long as that of the cube of half side ε: for training."""

    ball: ClassVar[str] = "l2"


def noise_length(epsilon: float, pixels: int) -> float:
    """Return ε √(n/3): the root mean square length of noise in the cube, the radius of the ball."""
    return epsilon * math.sqrt(pixels / 3)


INPUT_NOISE: dict[str, type[Attack]] = {"noise-cube": NoiseCube, "noise-ball": NoiseBall}
"""The names that a recipe's adversary has for them."""
