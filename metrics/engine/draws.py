"""Random numbers for many images: every image's are its own, whoever is attacked, in any batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metrics.attacks.geometry import Block, Randomness, own_generator

BLOCK, BLOCK_PIXELS = 64, 2**18  # images whose random numbers are drawn together, at most


@dataclass(frozen=True)
class Draws:
    """The random numbers of images, in blocks of ``size``, a seed for each block."""

    seeds: Sequence[int]
    size: int
    device: torch.device

    @classmethod
    def of(cls, images: Tensor, generator: torch.Generator | None, *, whole: bool) -> Draws:
        """Return those of ``images``; ``whole`` for attacks that draw for a block themselves."""
        generator = own_generator(generator, images.device)
        # Of large images fewer draw together: a block is drawn whole, whatever is left of it.
        size = BLOCK if whole else max(1, min(BLOCK, BLOCK_PIXELS // images[0].numel()))
        count = -(-len(images) // size)
        seeds = torch.randint(2**62, (count,), generator=generator, device=generator.device)
        return cls(seeds.tolist(), size, generator.device)

    def at(self, places: Sequence[int], x: Tensor) -> Randomness:
        """Return those of the images at ``places``, which ``x`` are."""
        numbers = sorted({place // self.size for place in places})
        first = {number: i * self.size for i, number in enumerate(numbers)}
        blocks: list[Block] = [
            (torch.Generator(device=self.device).manual_seed(self.seeds[number]), self.size)
            for number in numbers
        ]
        at = [first[place // self.size] + place % self.size for place in places]
        return Randomness(x, blocks=blocks, places=torch.tensor(at, device=x.device))
