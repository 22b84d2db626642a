"""Square in L2: random search that moves the perturbation's mass from one window to another.

Source: Andriushchenko et al. 2020, *Square Attack* (arXiv 1912.00049), algorithm 3 and equation 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metrics.attacks.geometry import SHORTER, Randomness, column, moved, unit
from metrics.attacks.rows import Rows, unbeaten
from metrics.attacks.square import Square
from metrics.precision import widened

TILES = 5  # along a side, at the start
SMALLEST = 3  # side of a window


@dataclass(frozen=True, kw_only=True)
class SquareL2(Square):
    """Square attack (L2, black box); a call returns the best image found.

    It begins with a grid of peaks; each query empties one window and spends what it held, and what
    is left of epsilon, on another, and is kept if the margin of the label shrinks.

    Args:
        epsilon: radius of the ball.
        queries, share: as in :class:`Square`.

    Raises:
        ValueError: as :class:`Square`, and an epsilon above the diameter of the images.
    """

    own_epsilon: ClassVar[bool] = True
    epsilon: float = 0.5

    @property
    def distance(self) -> str:
        return "l2"

    def begin(self, rows: Rows, random: Randomness) -> None:
        _, channels, height, width = rows.x.shape
        side = max(min(height, width) // TILES, 1)
        down, across = height // side, width // side
        signs = _signs(random.uniform(channels, down, across))
        tiles = signs[..., :, None, :, None] * peak(side).to(signs)[:, None, :]
        tiled = tiles.reshape(len(rows.x), channels, down * side, across * side)
        top, left = (height - down * side) // 2, (width - across * side) // 2
        delta = tiled.new_zeros(rows.x.shape)
        delta[:, :, top : top + down * side, left : left + across * side] = tiled
        rows.candidate = self._at(rows.x, delta)
        rows.best = rows.candidate
        rows.best_loss = unbeaten(rows.x)

    def advance(self, rows: Rows, step: int, random: Randomness) -> None:
        better = rows.losses > rows.best_loss
        rows.best_loss = torch.where(better, rows.losses, rows.best_loss)
        rows.best = torch.where(column(better), rows.candidate, rows.best)
        _, channels, height, width = rows.x.shape
        side = self._window(step, height, width)
        corners, turn = random.uniform(4), random.uniform(1, 1, 1)
        signs = _signs(random.uniform(channels, 1, 1))
        delta = widened(rows.best) - widened(rows.x)
        filled = _window(corners[:, :2], side, delta)
        emptied = _window(corners[:, 2:], side, delta)
        held = delta[filled]
        spare = (self.epsilon**2 - delta.square().flatten(1).sum(dim=1)).clamp_min(0)
        both = torch.zeros_like(delta, dtype=torch.bool)
        both[filled] = both[emptied] = True
        energy = (delta * both).square().sum(dim=(2, 3), keepdim=True)
        energy = energy + column(spare) / channels
        wave = peak(side).to(delta)
        wave = torch.where(turn < 0.5, wave, wave.T) * signs + _of_length_one(held)
        delta[emptied] = 0
        delta[filled] = _of_length_one(wave) * energy.sqrt()
        rows.candidate = self._at(rows.x, delta)

    def _at(self, x: Tensor, delta: Tensor) -> Tensor:
        return moved(x, SHORTER * self.epsilon * unit(delta))

    def _window(self, step: int, height: int, width: int) -> int:
        """Return the side of the windows of a step, which is odd where the image allows it."""
        side = max(self._side(step, height, width), SMALLEST) // 2 * 2 + 1
        return min(side, height, width)


def _signs(draws: Tensor) -> Tensor:
    return torch.where(draws < 0.5, -1.0, 1.0).to(draws.dtype)


def _of_length_one(windows: Tensor) -> Tensor:
    """Return each channel of windows ``(N, C, s, s)`` at Euclidean length 1."""
    return windows / windows.square().sum(dim=(2, 3), keepdim=True).sqrt().clamp_min(1e-12)


def _window(corners: Tensor, side: int, images: Tensor) -> tuple[Tensor, ...]:
    """Return the index of a square window of every image, at shares ``(N, 2)`` of the room."""
    count, channels, height, width = images.shape
    room = corners.new_tensor([height - side + 1, width - side + 1])
    first = (corners * room).long()
    along = torch.arange(side, device=images.device)
    rows = first[:, 0, None] + along
    columns = first[:, 1, None] + along
    image = torch.arange(count, device=images.device)
    channel = torch.arange(channels, device=images.device)
    return (
        image[:, None, None, None],
        channel[None, :, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    )


def peak(side: int) -> Tensor:
    """Return ``(side, side)``, of length 1: a hill in one half, and a valley in the other.

    It is made anew each time: one that was made while memory is estimated has no values, and kept,
    it would be read by the next attack in the process.
    """
    upper = side // 2
    whole = torch.cat([_hill(upper, side), -_hill(side - upper, side)])
    wave: Tensor = whole / whole.norm()
    return wave


def _hill(height: int, width: int) -> Tensor:
    """Return the sum over squares around the centre of 1 / (half their side)^2 (equation 2)."""
    down = (torch.arange(height) - height // 2).abs()
    across = (torch.arange(width) - width // 2).abs()
    apart = torch.maximum(down[:, None], across[None, :])
    shares = 1 / torch.arange(1, max(height, width) // 2 + 2).square().float()
    tails = shares.flip(0).cumsum(0).flip(0)
    hill: Tensor = tails[apart]
    return hill
