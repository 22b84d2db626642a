"""Nested state as JSON and tensors by name, and back: equal to the last bit, strides included.

Sums over a tensor go in the order of its strides, so a weight that comes back with other strides
trains on with other last digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nas.trial.state import Epoch

Tensors = dict[str, Tensor]
TENSOR, STRIDES, ON = "tensor", "strides", "on"


def pack(value: Any, tensors: Tensors) -> Any:
    """Return ``value`` as JSON types; its tensors are copied into ``tensors``, on the CPU.

    Args:
        value: of None, booleans, numbers, text, tensors, arrays of numpy's, epochs, and of lists,
            tuples and mappings of these.
        tensors: gets a new name for each.

    Raises:
        TypeError: something else is in it, or a tensor that is sparse or quantized.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        return _pack_tensor(value.detach(), tensors)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": value.dtype.str}
    if isinstance(value, Epoch):
        return {"epoch": asdict(value)}
    if isinstance(value, list):
        return [pack(item, tensors) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [pack(item, tensors) for item in value]}
    if isinstance(value, Mapping):
        return {"items": [[pack(k, tensors), pack(v, tensors)] for k, v in value.items()]}
    raise TypeError(f"expected tensors and plain types, got {type(value).__name__}")


def unpack(packed: Any, tensors: Tensors, device: torch.device) -> Any:
    """Return what :func:`pack` was given.

    Args:
        packed: what it returned.
        tensors: what it added.
        device: where tensors go that lay on no CPU.
    """
    if isinstance(packed, list):
        return [unpack(item, tensors, device) for item in packed]
    if not isinstance(packed, dict):
        return packed
    if TENSOR in packed:
        kept, strides = tensors[packed[TENSOR]], packed[STRIDES]
        if strides is not None and tuple(strides) != kept.stride():
            kept = torch.empty_strided(kept.shape, strides, dtype=kept.dtype).copy_(kept)
        return kept if packed[ON] == "cpu" else kept.to(device)
    if "array" in packed:
        return np.array(packed["array"], dtype=packed["dtype"])
    if "epoch" in packed:
        return Epoch(**packed["epoch"])
    if "tuple" in packed:
        return tuple(unpack(item, tensors, device) for item in packed["tuple"])
    unpacked = (
        (unpack(k, tensors, device), unpack(v, tensors, device)) for k, v in packed["items"]
    )
    return dict(unpacked)


def _pack_tensor(value: Tensor, tensors: Tensors) -> dict[str, Any]:
    if value.layout != torch.strided or value.is_quantized:
        raise TypeError(f"expected dense tensors, got one of {value.layout}, {value.dtype}")
    name = str(len(tensors))
    # A copy of its own: safetensors takes no two tensors of one memory, as tied weights are.
    tensors[name] = value.cpu().clone(memory_format=torch.contiguous_format)
    sides = zip(value.shape, value.stride(), strict=True)
    expanded = any(size > 1 and stride == 0 for size, stride in sides)
    strides = None if expanded else list(value.stride())
    return {TENSOR: name, STRIDES: strides, ON: value.device.type}
