"""What every exported ``model.py`` ends with: its weights read with torch alone, and a check.

The functions here are written into ``model.py`` as they stand, so they may use nothing but torch
and the standard library, and each other.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import torch
from torch import Tensor, nn


def put(model: nn.Module, path: str, what: nn.Module | Tensor) -> None:
    """Register a layer, parameter or buffer under its dotted name, making the levels between."""
    *levels, name = path.split(".")
    for level in levels:
        if level not in model._modules:
            model.add_module(level, nn.Module())
        model = model.get_submodule(level)
    if isinstance(what, nn.Module):
        model.add_module(name, what)
    elif isinstance(what, nn.Parameter):
        model.register_parameter(name, what)
    else:
        model.register_buffer(name, what)


def channels_last(model: nn.Module) -> None:
    """Lay the kernels of convolutions out as they were trained, so that sums add up alike."""
    for weight in model.parameters():
        if weight.ndim == 4:
            n, c, h, w = weight.shape
            strides = (c * h * w, 1, w * c, c)
            laid = weight.data.new_empty(weight.numel()).as_strided(weight.shape, strides)
            weight.data = laid.copy_(weight.data)


def contiguous_on_gpu(x: Tensor) -> Tensor:
    """Return ``x``, contiguous on a GPU: the gradient of its average pools is wrong otherwise."""
    return x.contiguous() if x.is_cuda else x


def read_safetensors(file: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file: 8 bytes of length, a JSON header, then numbers."""
    kinds = {
        "F64": torch.float64,
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "I64": torch.int64,
        "I32": torch.int32,
        "I16": torch.int16,
        "I8": torch.int8,
        "U8": torch.uint8,
        "BOOL": torch.bool,
    }
    data = Path(file).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    numbers, found = bytearray(data[8 + length :]), {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            kind, shape = kinds[entry["dtype"]], entry["shape"]
            if begin == end:
                found[name] = torch.empty(shape, dtype=kind)
            else:
                part = numbers[begin:end]  # a copy: where numbers begin decides no alignment
                found[name] = torch.frombuffer(part, dtype=kind).view(shape)
    return found


def filled(model: nn.Module, directory: str | Path) -> nn.Module:
    """Return the model with the weights of a directory, in eval mode."""
    model.load_state_dict(read_safetensors(Path(directory) / "model.safetensors"))
    return model.eval()


def largest_difference(model: nn.Module, directory: str | Path) -> tuple[float, float]:
    """Return how far the logits of the stored images are from the stored ones, and what may be.

    Other kernels add in another order, so that last digits differ from one machine to the next.
    """
    stored = read_safetensors(Path(directory) / "check.safetensors")
    with torch.no_grad():
        logits = model(stored["images"].float() / 255)
    most = max(1e-4, 1e-5 * stored["logits"].abs().max().item())
    return (logits - stored["logits"]).abs().max().item(), most
