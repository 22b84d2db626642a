"""Adversarial weight perturbation: the loss's gradient is taken where weights make it worse.

Source: Wu et al. 2020 (arXiv 2004.05884). Every parameter with more than one dimension (weights of
convolutions and linear layers; no biases, not those of batch norm) moves by γ ||w|| g / ||g||, g
the gradient of the minibatch's own loss, norms over the whole parameter. The authors' program takes
an SGD step on a copy of the model and scales each difference to the norm of its parameter: that is
this step, whatever the rate. Its copy runs in training mode, and keeps batch norm's statistics to
itself; those of the model are updated once a minibatch, by the pass at the moved weights. So here.
It puts weights back after the optimizer's step, and so decays the moved ones; here they are back
before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def perturbed(model: nn.Module, gamma: float) -> Iterator[None]:
    """Within, weights are moved up the gradient that ``.grad`` holds, which is let go.

    In the end they are what they were, to the bit, also on an exception.

    Args:
        model: with the gradients of the loss that is to rise.
        gamma: how far each weight moves, as a share of its norm.
    """
    moving = [p for p in model.parameters() if p.ndim > 1 and p.grad is not None]
    saved = [p.detach().clone() for p in moving]
    try:
        with torch.no_grad():
            for parameter in moving:
                parameter.add_(step(parameter, gamma))
        model.zero_grad(set_to_none=True)
        yield
    finally:
        with torch.no_grad():
            for parameter, before in zip(moving, saved, strict=True):
                parameter.copy_(before)


def step(parameter: Tensor, gamma: float) -> Tensor:
    """Return γ ||w|| g / ||g||; zero where the gradient is."""
    gradient = parameter.grad
    assert gradient is not None
    length = gradient.norm()
    scale: Tensor = gamma * parameter.norm() / torch.where(length > 0, length, 1)
    return gradient * scale  # on the device: nothing here waits for it


@contextmanager
def buffers_as_found(model: nn.Module) -> Iterator[None]:
    """Give buffers, such as batch norm's statistics, their values back in the end."""
    saved = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in saved:
                buffer.copy_(before)
