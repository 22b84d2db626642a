"""Random perturbations: what a gradient is to be compared with.

Source: Sutton et al. 2023 (arXiv 2309.03665), sections 2 and 7: uniform draws from the ball, and
from the cube of the same mean Euclidean length.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from metrics.attacks.geometry import SHORTER, Randomness, in_ball, moved, project, unit, within
from metrics.attacks.iterative import Iterative, check_counts
from metrics.attacks.rows import Rows

REGIONS = ("cube", "ball", "sphere")
DISTRIBUTIONS = ("uniform", "gaussian")


@dataclass(frozen=True, kw_only=True)
class Noise(Iterative):
    """Random noise, clipped to [0, 1]; a call returns, of several draws, the worst.

    Args:
        epsilon: half the side of the ``cube`` (L infinity), or the radius of the ``ball`` or
            ``sphere`` (L2); of any length.
        region: where the noise lies.
        distribution: ``uniform`` in the region, or ``gaussian``: N(0, σ²) put back into it, with σ
            epsilon / 2 in the cube and epsilon / sqrt(n) in the ball, n the pixels of an image.
            On the sphere the two are one.
        draws: how often to draw.

    Raises:
        ValueError: epsilon below 0 or not finite, draws below 1, an unknown name.
    """

    as_metric: ClassVar[Mapping[str, Any]] = {"draws": 10}
    uses_gradients: ClassVar[bool] = False
    any_length: ClassVar[bool] = True
    returns_best: ClassVar[bool] = True
    region: str = "cube"
    distribution: str = "uniform"
    draws: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, known in (("region", REGIONS), ("distribution", DISTRIBUTIONS)):
            if getattr(self, field) not in known:
                raise ValueError(
                    f"{field}: expected one of {list(known)}, got {getattr(self, field)!r}"
                )
        check_counts(draws=self.draws)

    @property
    def looks(self) -> int:
        return self.draws - 1

    @property
    def distance(self) -> str:
        return "linf" if self.region == "cube" else "l2"

    def begin(self, rows: Rows, random: Randomness) -> None:
        rows.candidate = moved(rows.x, self._noise(rows.x, random))
        if self.region == "cube":  # whose side float32 may round up
            rows.candidate = rows.candidate.clamp(*within(rows.x, self.epsilon))

    def advance(self, rows: Rows, step: int, random: Randomness) -> None:
        self.begin(rows, random)

    def _noise(self, x: Tensor, random: Randomness) -> Tensor:
        shape = tuple(x.shape[1:])
        longest = self.epsilon if self.region == "cube" else SHORTER * self.epsilon
        if self.region == "sphere":
            return longest * unit(random.normal(*shape))
        if self.distribution == "uniform":
            noise = longest * in_ball(shape, self.distance, random)
        else:
            sigma = self.epsilon / (2 if self.region == "cube" else math.sqrt(math.prod(shape)))
            noise = sigma * random.normal(*shape)
        return project(noise, self.distance, self.epsilon)
