"""What the parts of a training hold, as tensors and plain types, and how it is put back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def kept_of(part: Any) -> Any:
    """Return what ``part`` holds, such as ``restored`` takes; plain values are returned as such.

    A part is a module, a generator of random numbers, whatever has ``state_dict`` and
    ``load_state_dict`` (an optimizer, averaged weights), a mapping of these, or a plain value.
    """
    if isinstance(part, nn.Module):
        return _all_weights(part)
    if isinstance(part, torch.Generator):
        return part.get_state()
    if hasattr(part, "state_dict"):
        return part.state_dict()
    if isinstance(part, Mapping):
        return {name: kept_of(value) for name, value in part.items()}
    return part


def restored(part: Any, was: Any) -> Any:
    """Put back what :func:`kept_of` gave, in place where the part has state; return the part."""
    if isinstance(part, nn.Module):
        _put(part, was)
    elif isinstance(part, torch.Generator):
        part.set_state(was)
    elif hasattr(part, "load_state_dict"):
        part.load_state_dict(was)
    elif isinstance(part, Mapping):
        return {name: restored(part.get(name), value) for name, value in was.items()}
    else:
        return was
    return part


def fits(model: nn.Module, was: Mapping[str, Tensor]) -> bool:
    """Whether a model has weights and buffers of these names, shapes and types."""
    mine = _all_weights(model)
    return mine.keys() == was.keys() and all(
        mine[n].shape == was[n].shape and mine[n].dtype == was[n].dtype for n in was
    )


def _own(model: nn.Module) -> dict[str, Tensor]:
    """Return the model's parameters and buffers, also those that no state dict has."""
    return {
        **dict(model.named_buffers(remove_duplicate=False)),
        **dict(model.named_parameters(remove_duplicate=False)),
    }


def _all_weights(model: nn.Module) -> dict[str, Tensor]:
    return {**model.state_dict(), **_own(model)}


@torch.no_grad()
def _put(model: nn.Module, was: Mapping[str, Tensor]) -> None:
    own = _own(model)
    for name, there in own.items():
        if there.stride() == was[name].stride():
            there.copy_(was[name])
        else:  # what had been laid out otherwise since the model was made
            there.data = was[name]
    if rest := {name: value for name, value in was.items() if name not in own}:
        model.load_state_dict(rest, strict=False)
