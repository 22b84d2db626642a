"""What batch norms do while Ψ is measured: the paper's Table 2 hangs on it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from metrics.left_as_found import evaluating

BATCH_NORM = ("eval", "frozen", "batch")
FEW = 4  # inputs, below which the statistics of a batch say little


@contextmanager
def normalising(model: nn.Module, images: Tensor, batch_norm: str) -> Iterator[None]:
    """Put the batch norms in the asked mode; modes and running statistics come back.

    Args:
        model: left as found.
        images: the clean batch whose statistics ``frozen`` takes.
        batch_norm: ``eval`` for a trained model; ``frozen`` takes the statistics of one clean
            batch, then stays in ``eval()`` (an untrained model: its running statistics are none);
            ``batch`` takes those of every batch, which couples the inputs.

    Warns:
        UserWarning: statistics of fewer than 4 inputs.
    """
    norms = batch_norms(model)
    if batch_norm != "eval" and norms and len(images) < FEW:
        warnings.warn(
            f"batch norm statistics of {len(images)} inputs: expected at least {FEW}",
            stacklevel=3,
        )
    saved = [(norm, _buffers(norm)) for norm in norms]
    with evaluating(model):
        try:
            if batch_norm == "batch":
                for norm in norms:
                    norm.train()
            elif batch_norm == "frozen":
                _freeze(model, norms, images)
            yield
        finally:
            for norm, buffers in saved:
                for name, value in buffers.items():
                    getattr(norm, name).copy_(value)


def coupled(model: nn.Module, batch_norm: str) -> bool:
    """Whether an input's output depends on which others are in its batch."""
    norms = batch_norms(model)
    return any(norm.running_mean is None for norm in norms) or (
        batch_norm == "batch" and bool(norms)
    )


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the batch norms of a model."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def check_batch_norm(batch_norm: str) -> None:
    """Raise ValueError for an unknown mode."""
    if batch_norm not in BATCH_NORM:
        raise ValueError(f"batch_norm: expected one of {list(BATCH_NORM)}, got {batch_norm!r}")


def _freeze(model: nn.Module, norms: list[_BatchNorm], images: Tensor) -> None:
    """Give every norm the mean and variance of what reaches it, from the first norm to the last.

    torch's own running variance is the unbiased one, larger than what a batch is divided by: by a
    seventh for 8 inputs of 1 x 1, and in every layer again.
    """

    def take(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        (x,) = inputs
        variance, mean = torch.var_mean(x, dim=[0, *range(2, x.ndim)], correction=0)
        for buffer, value in ((norm.running_var, variance), (norm.running_mean, mean)):
            if isinstance(buffer, Tensor):
                buffer.copy_(value)

    handles = [norm.register_forward_pre_hook(take) for norm in norms]
    try:
        with torch.no_grad():
            model(images.clone())
    finally:
        for handle in handles:
            handle.remove()


def _buffers(norm: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in norm.named_buffers()}
