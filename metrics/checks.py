"""What images, labels, logits and models must be; everything else is refused in one line.

Every public function that takes a model asks here, so that each says the same of the same fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from numbers import Integral
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SHAPE_ERRORS = (  # what torch says when a model is given images of another shape
    "to have", "cannot be multiplied", "size mismatch", "invalid for input of size", "must match",
    "Kernel size can't be greater", "Output size is too small", "channels in input",
)  # fmt: skip
TRAINING = {
    **dict.fromkeys(("batch_norm", "instance_norm"), 5),
    **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"), 2),
    **dict.fromkeys(("dropout_", "feature_dropout_"), 2),
    **dict.fromkeys(("lstm", "gru"), 6),
    **dict.fromkeys(("rrelu", "rrelu_"), 3),
}
"""Operations of TorchScript -> which of their inputs says that they train."""
ROUNDING = 1e-6  # how far outside [0, 1] a pixel may lie that was normalised and back

T = TypeVar("T", int, int | None)
_known: ContextVar[bool] = ContextVar("known", default=False)


@contextmanager
def values_known(known: bool = True) -> Iterator[None]:
    """Take the values of images and labels as checked, within: every look waits for a GPU.

    For whoever attacks images again and again that were checked before, as training does. Shapes
    and types are still asked for; a label without a logit is then torch's error.
    """
    token = _known.set(known)
    try:
        yield
    finally:
        _known.reset(token)


def check_inputs(images: Tensor) -> None:
    """Raise ValueError unless ``images`` are ``(N, C, H, W)`` floats, N at least 1."""
    _check_tensor("images", images)
    plain = images.layout is torch.strided and not images.is_meta and not images.is_nested
    if not plain:
        raise ValueError(
            f"images: expected a dense tensor with values, got one of layout {images.layout} "
            f"on {images.device}"
        )
    if images.ndim != 4 or images.dtype not in FLOATS:
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
    if _known.get():
        return images
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


def check_batch_size(batch_size: T) -> T:
    """Return a number of images at a time as an int; raise ValueError for one below 1."""
    if batch_size is None:
        return batch_size
    if not (isinstance(batch_size, Integral) and batch_size >= 1):
        raise ValueError(f"batch_size: expected a number of images >= 1, got {batch_size!r}")
    return int(batch_size)  # torch splits by no other integer


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
    if logits.dtype not in FLOATS or logits.layout is not torch.strided:
        raise ValueError(f"model: expected float logits, got {logits.dtype} ({logits.layout})")
    return logits


def check_outputs(outputs: Any, count: int) -> Tensor:
    """Return ``outputs``; raise ValueError unless they are floats ``(count, ...)``."""
    fits = isinstance(outputs, Tensor) and outputs.ndim > 0 and len(outputs) == count
    if not (fits and outputs.dtype in FLOATS and outputs.layout is torch.strided
            and outputs.numel()):  # fmt: skip
        got = (
            f"{outputs.dtype} {tuple(outputs.shape)}"
            if isinstance(outputs, Tensor)
            else _kind(outputs)
        )
        raise ValueError(f"model: expected float outputs ({count}, ...), got {got}")
    return outputs  # type: ignore[no-any-return]


def check_classes(logits: Tensor, labels: Tensor) -> None:
    """Raise ValueError unless there is a column of ``logits`` for every label."""
    if _known.get():
        return
    low, high = torch.stack(labels.aminmax()).tolist() if len(labels) else (0, 0)
    if not 0 <= low <= high < logits.shape[1]:
        raise ValueError(
            f"labels: expected classes 0 ... {logits.shape[1] - 1}, as many as logits, "
            f"got {low} ... {high}"
        )


def refuses(model: nn.Module, images: Tensor, error: Exception) -> str:
    """Return in one line why ``model`` takes no such images, or ``""`` if that is not the error."""
    own = {(p.dtype, p.device) for p in model.parameters() if p.is_floating_point()}
    got = f"got {images.dtype} {tuple(images.shape)} on {images.device}"
    if len(own) == 1 and (images.dtype, images.device) not in own:
        ((dtype, device),) = own
        return f"images: expected the model's own type and device, {dtype} on {device}, {got}"
    line = str(error).partition("\n")[0]
    if "scalar type" in line:
        return f"images: expected a type that the model takes, {got}: {line}"
    if any(part in line for part in SHAPE_ERRORS):
        return f"images: expected a shape that the model takes, {got}: {line}"
    return ""


def check_integers(**numbers: Any) -> None:
    """Raise ValueError for a number that must be an integer and is none."""
    for name, number in numbers.items():
        if not isinstance(number, Integral):
            raise ValueError(f"{name}: expected an integer, got {number!r}")


def scripted(model: nn.Module) -> list[torch.jit.ScriptModule]:
    """Return the TorchScript modules of a model: their batch norms and hooks are out of reach."""
    return [module for module in model.modules() if isinstance(module, torch.jit.ScriptModule)]


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()
    for module in model.modules():  # what was computed once and is no buffer
        if not isinstance(module, torch.jit.ScriptModule):
            yield from (value for value in vars(module).values() if isinstance(value, Tensor))


def _check_tensor(what: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(f"{what}: expected a tensor, got {_kind(value)}; see torch.as_tensor")


def _kind(value: Any) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _traced_in_training(module: torch.jit.ScriptModule) -> str:
    """Return the operation of a graph that is fixed to training mode, else ``""``."""
    graph: Any = getattr(module, "inlined_graph", None)
    if graph is None:  # a container without a forward of its own
        return ""
    for operation, place in TRAINING.items():
        for node in graph.findAllNodes(f"aten::{operation}"):
            inputs = list(node.inputs())
            if inputs[place].toIValue() is True and not _harmless(operation, inputs, place):
                return operation
    return ""


def _harmless(operation: str, inputs: list[Any], place: int) -> bool:
    """Whether an operation does the same in eval(): it drops no share, or keeps no statistics."""
    if operation.endswith("_norm"):
        return str(inputs[3].type().kind()) == "NoneType"
    return bool(inputs[place - 1].toIValue() == 0)
