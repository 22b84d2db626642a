"""What images, labels, logits and models must be; everything else is refused in one line."""

from __future__ import annotations

from itertools import chain

from torch import Tensor, nn


def check_images(images: Tensor) -> None:
    """Raise ValueError unless ``images`` are ``(N, C, H, W)`` floats in [0, 1]."""
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            "images: expected a float tensor (N, C, H, W) in [0, 1], "
            f"got {images.dtype} {tuple(images.shape)}"
        )
    if images.numel():
        low, high = (v.item() for v in images.detach().aminmax())
        if not (low >= 0 and high <= 1):  # NaN fails both comparisons
            raise ValueError(f"images: expected values in [0, 1], got {low:.4g} ... {high:.4g}")


def check_labels(images: Tensor, labels: Tensor) -> None:
    """Raise ValueError unless ``labels`` are one integer class for each image."""
    if labels.is_floating_point() or tuple(labels.shape) != (len(images),):
        raise ValueError(
            f"labels: expected {len(images)} integers, one for each image, "
            f"got {labels.dtype} {tuple(labels.shape)}"
        )
    if labels.device != images.device:
        raise ValueError(f"labels: expected them on {images.device}, got {labels.device}")


def check_model(model: nn.Module) -> None:
    """Raise ValueError for a model that no gradient can be taken through."""
    if any(tensor.is_inference() for tensor in chain(model.parameters(), model.buffers())):
        raise ValueError(
            "model: expected ordinary parameters, got tensors made under torch.inference_mode(), "
            "which have no gradients; build or load the model outside of it"
        )


def check_logits(logits: Tensor, labels: Tensor) -> None:
    """Raise ValueError unless ``logits`` are ``(N, classes)`` with a column for every label."""
    if logits.ndim != 2 or len(logits) != len(labels) or logits.shape[1] < 2:
        raise ValueError(
            f"model: expected logits ({len(labels)}, classes >= 2), got {tuple(logits.shape)}"
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
        raise ValueError(
            f"labels: expected classes 0 ... {logits.shape[1] - 1}, as many as logits, "
            f"got {int(labels.min())} ... {int(labels.max())}"
        )
