"""Upper bounds on the largest singular value, in float64 and rounded outwards.

Power iteration comes from below and certifies nothing; everything here comes from above.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SLACK = 1e-6  # relative; rounding in float64 stays below (rows + columns)^2 * 1e-16
SQUARINGS = 7  # of a Gram matrix at most
EXACTLY = 8  # matrices of a batch whose norms are computed
ROUGH = 1e-3  # relative, what single precision may lose in the squarings
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
    if groups * frequencies * small**2 * (large + 4 * SQUARINGS * small) > MOST_WORK:
        return None
    best = 0.0
    height, width = blocks.shape[3:]
    columns = _waves(torch.arange(grid[1] // 2 + 1), width, grid[1])  # of real weights half do
    along = torch.einsum("goihw,cw->goihc", blocks.to(columns.dtype), columns)
    rows_at_once = max(1, AT_ONCE // max(1, groups * outputs * inputs * along.shape[-1]))
    for rows in torch.arange(grid[0]).split(rows_at_once):
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
    """Return an upper bound on the spectral norms of ``(n, rows, columns)``, ``best`` at least.

    Gram iteration (Delattre et al. 2023, arXiv 2305.16173): ||G^(2^k)||_F^(1 / 2^(k+1)) is an upper
    bound on sqrt(||G||) for every k, and ||P P||_F / ||P||_F a lower one on ||P||. Whatever is
    below the largest lower bound is dropped on the way; what is left is computed exactly, or where
    it is much, bounded.
    """
    if matrices.shape[1] > matrices.shape[2]:
        matrices = matrices.mH
    if matrices.shape[1] == 1:
        return max(best, float(matrices.abs().square().sum(dim=2).sqrt().max()))
    rough = matrices.to(torch.complex64)
    size = rough.abs().amax(dim=(1, 2)).clamp_min(1e-30)
    rough = rough / size[:, None, None]
    power, logs = rough @ rough.mH, 2 * size.double().log()
    left = torch.arange(len(matrices))
    for k in range(SQUARINGS):
        norm = torch.linalg.vector_norm(power, dim=(1, 2)).clamp_min(1e-30)
        logs = logs + norm.double().log() / 2**k
        power = power / norm[:, None, None]
        power = power @ power
        again = torch.linalg.vector_norm(power, dim=(1, 2)).clamp_min(1e-30).double().log()
        upper = logs + again / 2 ** (k + 1)  # of the logarithm of the squared norm
        lower = (logs + again / 2**k).max()
        kept = upper >= torch.maximum(lower - ROUGH, lower.new_tensor(2 * math.log(best or 1e-300)))
        left, power, logs, upper = left[kept], power[kept], logs[kept], upper[kept]
        if len(left) <= EXACTLY:
            break
    if len(left) > EXACTLY:
        return max(best, float((upper.max() / 2).exp()) * (1 + ROUGH))
    exact = matrices[left]
    values = torch.linalg.eigvalsh(exact @ exact.mH).clamp_min(0).sqrt()
    return max(best, float(values.max())) if len(left) else best
