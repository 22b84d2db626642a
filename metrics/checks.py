"""What images, labels, logits and models must be; everything else is refused in one line.

Every public function that takes a model asks here, so that each says the same of the same fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

ROUNDING = 1e-6  # how far outside [0, 1] a pixel may lie that was normalised and back


def check_inputs(images: Tensor) -> None:
    """Raise ValueError unless ``images`` are ``(N, C, H, W)`` floats, N at least 1."""
    _check_tensor("images", images)
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            f"images: expected a float tensor (N, C, H, W), got {images.dtype} "
            f"{tuple(images.shape)}"
        )
    if images.numel() == 0:
        raise ValueError(f"images: expected at least one image, got {tuple(images.shape)}")


def check_images(images: Tensor) -> Tensor:
    """Return ``images``; what rounding put outside [0, 1] is put back, in a copy.

    Raises:
        ValueError: anything but ``(N, C, H, W)`` floats in [0, 1], N at least 1.
    """
    check_inputs(images)
    low, high = torch.stack(images.detach().aminmax()).tolist()
    if 0 <= low and high <= 1:  # NaN fails both comparisons
        return images
    near = max(ROUNDING, torch.finfo(images.dtype).eps)
    if -near <= low and high <= 1 + near:
        return images.detach().clamp(0, 1)
    raise ValueError(f"images: expected values in [0, 1], got {low:.9g} ... {high:.9g}")


def check_labels(images: Tensor, labels: Tensor) -> Tensor:
    """Return ``labels`` as int64; raise ValueError unless they are one integer class an image."""
    _check_tensor("labels", labels)
    integers = not (labels.is_floating_point() or labels.is_complex())
    if not integers or tuple(labels.shape) != (len(images),):
        raise ValueError(
            f"labels: expected {len(images)} integers, one for each image, "
            f"got {labels.dtype} {tuple(labels.shape)}"
        )
    if labels.device != images.device:
        raise ValueError(f"labels: expected them on {images.device}, got {labels.device}")
    return labels.long()


def check_model(model: nn.Module) -> None:
    """Raise ValueError for a model that cannot be attacked, or not be left as found."""
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"model: expected a torch.nn.Module, got {_kind(model)}; put what it calls into the "
            "forward of one, whose eval() then reaches it"
        )
    for tensor in _tensors(model):
        if isinstance(tensor, UninitializedParameter | UninitializedBuffer):
            raise ValueError(
                "model: expected initialised parameters, got those of a lazy module; run it once"
            )
        if tensor.is_inference():
            raise ValueError(
                "model: expected ordinary parameters, got tensors made under "
                "torch.inference_mode(), which have no gradients; build or load the model outside "
                "of it"
            )
    for module in scripted(model):
        if not hasattr(module, "training"):
            raise ValueError(
                "model: expected a module that eval() and train() reach, got a frozen TorchScript "
                "module; pass the one that was frozen"
            )
        if traced := _traced_in_training(module):
            raise ValueError(
                f"model: expected a module traced in eval(), got one whose {traced} was traced in "
                "train() and stays so; trace model.eval(), or pass the module itself"
            )


def check_batch_size(batch_size: int | None) -> None:
    """Raise ValueError for a number of images at a time that is below 1."""
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size: expected a number of images >= 1, got {batch_size}")


def check_logits(logits: Any, count: int) -> Tensor:
    """Return ``logits``; raise ValueError unless they are floats ``(count, classes >= 2)``."""
    if not isinstance(logits, Tensor):
        raise ValueError(
            f"model: expected logits, a tensor ({count}, classes >= 2), got {_kind(logits)}; "
            "return them alone"
        )
    shape = tuple(logits.shape)
    if logits.ndim != 2 or shape[0] != count or shape[1] < 2:
        raise ValueError(f"model: expected logits ({count}, classes >= 2), got {shape}")
    if not logits.is_floating_point():
        raise ValueError(f"model: expected float logits, got {logits.dtype}")
    return logits


def check_outputs(outputs: Any, count: int) -> Tensor:
    """Return ``outputs``; raise ValueError unless they are floats ``(count, ...)``."""
    fits = isinstance(outputs, Tensor) and outputs.ndim > 0 and len(outputs) == count
    if not (fits and outputs.is_floating_point() and outputs.numel()):
        got = (
            f"{outputs.dtype} {tuple(outputs.shape)}"
            if isinstance(outputs, Tensor)
            else _kind(outputs)
        )
        raise ValueError(f"model: expected float outputs ({count}, ...), got {got}")
    return outputs  # type: ignore[no-any-return]


def check_classes(logits: Tensor, labels: Tensor) -> None:
    """Raise ValueError unless there is a column of ``logits`` for every label."""
    low, high = torch.stack(labels.aminmax()).tolist() if len(labels) else (0, 0)
    if not 0 <= low <= high < logits.shape[1]:
        raise ValueError(
            f"labels: expected classes 0 ... {logits.shape[1] - 1}, as many as logits, "
            f"got {low} ... {high}"
        )


def scripted(model: nn.Module) -> list[torch.jit.ScriptModule]:
    """Return the TorchScript modules of a model: their batch norms and hooks are out of reach."""
    return [module for module in model.modules() if isinstance(module, torch.jit.ScriptModule)]


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def _check_tensor(what: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(f"{what}: expected a tensor, got {_kind(value)}; see torch.as_tensor")


def _kind(value: Any) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _traced_in_training(module: torch.jit.ScriptModule) -> str:
    """Return the operation of a graph that is fixed to training mode, else ``""``."""
    graph: Any = module.inlined_graph
    for operation, place in (("batch_norm", 5), ("dropout", 2), ("feature_dropout", 2)):
        for node in graph.findAllNodes(f"aten::{operation}"):
            if list(node.inputs())[place].toIValue() is True and not _own_statistics(node):
                return operation
    return ""


def _own_statistics(node: Any) -> bool:
    """Whether a batch norm keeps no running statistics: then it takes the batch's in eval() too."""
    if node.kind() != "aten::batch_norm":
        return False
    return str(list(node.inputs())[3].type().kind()) == "NoneType"
