"""What a space builds: a normalisation and a network, in the layout that is fast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """(x - mean) / std per channel, inside the model, so that attacks stay in pixels."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


class Model(nn.Sequential):
    """What a space builds: the normalisation, then the network.

    Attributes:
        hidden_states: submodule (as in ``named_modules``) -> how many layers lie between the input
            and its output, in order. The last is ``""``, the model itself with the network's number
            of layers. Empty where the space names none, and of a slice.
    """

    hidden_states: dict[str, int]

    def __init__(self, *modules: Any, hidden_states: Mapping[str, int] | None = None) -> None:
        super().__init__(*modules)
        self.hidden_states = dict(hidden_states or {})


def channels_last(weight: Tensor) -> Tensor:
    """Return a copy in channels_last strides.

    torch's own conversion leaves a weight of one input channel as it is, and the convolution, and
    all behind it, then runs in the contiguous layout.
    """
    n, c, h, w = weight.shape
    strides = (c * h * w, 1, w * c, c)
    return weight.new_empty(weight.numel()).as_strided(weight.shape, strides).copy_(weight)
