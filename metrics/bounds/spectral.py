"""Upper bounds on the largest singular value, in float64 and rounded outwards.

Power iteration comes from below and certifies nothing; everything here comes from above. Gram
iteration (Delattre et al. 2023, arXiv 2305.16173) does too, but the eigenvalues themselves take a
third of its time or less (16 to 512 channels, 30 to 4 pixels).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from metrics.deadline import check

SLACK = 1e-6  # relative; rounding in float64 stays below (rows + columns)^2 * 1e-16
AT_ONCE = 2**22  # entries of the matrices of some frequencies
MOST_WORK = 3e11  # multiplications that the frequencies of one convolution may take


def outward(norm: float) -> float:
    """Return an upper bound on a norm that float64 computed."""
    return norm * (1 + SLACK)


def matrix_norm(matrix: Tensor) -> float:
    """Return an upper bound on the spectral norm of ``(rows, columns)``.

    The largest eigenvalue of the smaller Gram matrix.
    """
    matrix = matrix.double()
    scale = float(matrix.abs().max()) if matrix.numel() else 0.0
    if not scale:
        return 0.0
    matrix = matrix / scale
    gram = matrix @ matrix.mT if matrix.shape[0] <= matrix.shape[1] else matrix.mT @ matrix
    return outward(scale * math.sqrt(float(torch.linalg.eigvalsh(gram)[-1])))


def response_norm(
    weight: Tensor, stride: tuple[int, int], dilation: tuple[int, int], size: tuple[int, int]
) -> float | None:
    """Return an upper bound on the norm of a convolution, from its responses to frequencies.

    A convolution over ``size`` pixels, padding counted in, is a part of the circular one over as
    many (Sedghi et al. 2019, arXiv 1805.10408), whose norm is the largest of its frequencies'. A
    stride s is taken in by seeing the s x s pixels of each block as channels of their own.

    Args:
        weight: ``(groups, outputs, inputs, height, width)``.
        stride, dilation: along height and width.
        size: of the padded images.

    Returns:
        None where there are so many frequencies and channels that it would take too long.
    """
    blocks = _blocks(weight, stride, dilation)
    grid = [-(-n // s) for n, s in zip(size, stride, strict=True)]
    groups, outputs, inputs = blocks.shape[:3]
    small, large = sorted((outputs, inputs))
    frequencies = grid[0] * (grid[1] // 2 + 1)
    if groups * frequencies * small**2 * (large + 4 * small) > MOST_WORK:
        return None
    best = 0.0
    height, width = blocks.shape[3:]
    columns = _waves(torch.arange(grid[1] // 2 + 1), width, grid[1])  # of real weights half do
    along = torch.einsum("goihw,cw->goihc", blocks.to(columns.dtype), columns)
    rows_at_once = max(1, AT_ONCE // max(1, groups * outputs * inputs * along.shape[-1]))
    for rows in torch.arange(grid[0]).split(rows_at_once):
        check()
        waves = _waves(rows, height, grid[0])
        responses = torch.einsum("goihc,rh->rcgoi", along, waves).reshape(-1, outputs, inputs)
        best = _largest(responses, best)
    return outward(best)


def _waves(frequencies: Tensor, taps: int, size: int) -> Tensor:
    """Return ``(frequencies, taps)``: exp(-2 pi i f t / size)."""
    turns = torch.outer(frequencies, torch.arange(taps)) % size
    return torch.polar(
        torch.ones(turns.shape, dtype=torch.float64), turns.double() * (-2 * math.pi / size)
    )


def _blocks(weight: Tensor, stride: tuple[int, int], dilation: tuple[int, int]) -> Tensor:
    """Return the weights of the same convolution over stride x stride blocks as channels."""
    groups, outputs, inputs, height, width = weight.shape
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, (height, width), strict=True)]
    full = [-(-r // s) * s for r, s in zip(reach, stride, strict=True)]
    spaced = weight.new_zeros(groups, outputs, inputs, *full, dtype=torch.float64)
    spaced[..., : reach[0] : dilation[0], : reach[1] : dilation[1]] = weight.double()
    cut = spaced.view(
        groups, outputs, inputs, full[0] // stride[0], stride[0], full[1] // stride[1], stride[1]
    )
    moved = cut.permute(0, 1, 2, 4, 6, 3, 5)
    return moved.reshape(groups, outputs, -1, full[0] // stride[0], full[1] // stride[1])


def _largest(matrices: Tensor, best: float) -> float:
    """Return the largest spectral norm of ``(n, rows, columns)``, ``best`` at least."""
    if matrices.shape[1] > matrices.shape[2]:
        matrices = matrices.mH
    whole = torch.linalg.vector_norm(matrices, dim=(1, 2))  # no smaller than the spectral norm
    matrices = matrices[whole > best]
    if len(matrices) == 0:
        return best
    if matrices.shape[1] == 1:
        return float(whole.max())
    values = torch.linalg.eigvalsh(matrices @ matrices.mH)[:, -1]
    return max(best, math.sqrt(float(values.max())))
