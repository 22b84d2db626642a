"""One set of random perturbations for all images of a shape, made again wherever it is needed.

Source: Sutton et al. 2023 (arXiv 2309.03665), section 7: 2,000 draws from the uniform law on the
unit ball, one set for each shape of images.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from metrics.attacks.geometry import SHORTER, unit
from metrics.checks import check_integers

REGIONS = ("ball", "sphere", "cube", "gaussian")


@dataclass(frozen=True)
class UnitDraws:
    """Random perturbations of about length 1, by their number; none is kept.

    Each has a generator of its own on the CPU: a set is the same on every device, in batches of any
    size, and the beginning of a larger one.

    Attributes:
        shape: ``(C, H, W)``, n values in all.
        region: ``ball`` is uniform in the unit ball, ``sphere`` on it; ``cube`` uniform in
            [-√(3/n), √(3/n)]^n and ``gaussian`` N(0, 1/n), whose mean squared length is 1.
        seeds: one for each draw.
    """

    shape: tuple[int, ...]
    region: str
    seeds: tuple[int, ...]

    @classmethod
    def of(
        cls, shape: tuple[int, ...], count: int, *, region: str = "ball", seed: int = 0
    ) -> UnitDraws:
        """Return the first ``count`` draws of ``seed``.

        Raises:
            ValueError: no draws, a negative seed, or an unknown region.
        """
        check_integers(draws=count, seed=seed)
        if count < 1:
            raise ValueError(f"draws: expected >= 1, got {count}")
        if seed < 0:
            raise ValueError(f"seed: expected >= 0, got {seed}")
        if region not in REGIONS:
            raise ValueError(f"region: expected one of {list(REGIONS)}, got {region!r}")
        generator = torch.Generator().manual_seed(seed)
        seeds = torch.randint(2**62, (count,), generator=generator, device="cpu")
        return cls(tuple(shape), region, tuple(seeds.tolist()))

    def __len__(self) -> int:
        return len(self.seeds)

    def at(self, numbers: Iterable[int]) -> Tensor:
        """Return ``(k, *shape)`` float32 on the CPU: the draws of these numbers."""
        return torch.stack([self._draw(self.seeds[number]) for number in numbers])

    def _draw(self, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        n = math.prod(self.shape)
        if self.region == "cube":
            drawn = torch.rand(self.shape, generator=generator, device="cpu", dtype=torch.float32)
            return (2 * drawn - 1) * math.sqrt(3 / n)
        drawn = torch.randn(self.shape, generator=generator, device="cpu", dtype=torch.float32)
        if self.region == "gaussian":
            return drawn / math.sqrt(n)
        direction = SHORTER * unit(drawn[None])[0]  # rounding must not put it outside
        if self.region == "sphere":
            return direction
        volume = torch.rand((), generator=generator, device="cpu", dtype=torch.float64)
        return direction * math.pow(float(volume), 1 / n)
