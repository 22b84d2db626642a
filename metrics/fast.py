"""A model made ready to be attacked: a fast copy of it, and a count of what an evaluation spends.

The copy computes the same function with batch norms folded into the convolutions before them,
weights in channels_last, and in-place ReLUs. It is traced with ``torch.fx``; a model that cannot
be copied or traced, has hooks, or answers otherwise than its copy is attacked as it is. Rounding
differs in the copy, so nothing counts as broken until the model itself has misclassified the image.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from metrics.attacks.base import (
    Attack,
    Found,
    check_images,
    check_labels,
    check_logits,
    check_model,
    evaluating,
    logits_of,
    misclassified,
)

BATCH_SIZES = {"cpu": 100, "cuda": 1000}  # 100: the fastest of 50 ... 2,000 on a CPU, by up to 2 x
AGREEMENT = 1e-3  # largest difference of the copy's logits, as a share of the largest logit


@dataclass
class Spent:
    """Images that went through a model forwards, and whose gradient came back."""

    forwards: int = 0
    backwards: int = 0


class Evaluator:
    """Attacks one model in batches; made by :func:`evaluator`.

    Attributes:
        model: as given, in ``eval()``.
        quick: its fast copy, or the model itself.
        spent: forwards and backwards so far, of both.
    """

    def __init__(
        self,
        model: nn.Module,
        quick: nn.Module,
        *,
        spent: Spent,
        batch_size: int,
        early_exit: bool,
    ) -> None:
        self.model, self.quick, self.spent = model, quick, spent
        self.batch_size, self.early_exit = batch_size, early_exit

    def wrong(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return ``(N,)`` bool: which images the model itself gets wrong."""
        none = torch.zeros(0, dtype=torch.bool, device=labels.device)
        found = [none]
        batches = zip(images.split(self.batch_size), labels.split(self.batch_size), strict=True)
        for x, y in batches if len(images) else ():
            logits = logits_of(self.model, x)
            check_logits(logits, y)
            found.append(misclassified(logits, y))
        return torch.cat(found)

    def search(
        self, attack: Attack, images: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> Found:
        """Return what ``attack`` finds; what is broken, the model itself misclassifies."""
        batches = [
            self._search(attack, x, y, generator)
            for x, y in zip(
                images.split(self.batch_size), labels.split(self.batch_size), strict=True
            )
        ]
        return Found(
            torch.cat([found.images for found in batches]),
            torch.cat([found.broken for found in batches]),
            torch.cat([found.zero_gradients for found in batches]),
            torch.cat([found.nonfinite_gradients for found in batches]),
        )

    def _search(
        self, attack: Attack, x: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> Found:
        x, labels = _ordinary(x), _ordinary(labels)
        found = self._once(attack, self.quick, x, labels, generator)
        if self.quick is self.model:
            return found
        broken = found.broken.nonzero().squeeze(1)
        rounded = broken[~self.wrong(found.images[broken], labels[broken])]
        if len(rounded):
            again = self._once(attack, self.model, x[rounded], labels[rounded], generator)
            found.images[rounded], found.broken[rounded] = again.images, again.broken
        return found

    def _once(
        self,
        attack: Attack,
        model: nn.Module,
        x: Tensor,
        labels: Tensor,
        generator: torch.Generator | None,
    ) -> Found:
        return attack.search(model, x, labels, generator, early_exit=self.early_exit)


@contextmanager
def evaluator(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    batch_size: int | None = None,
    fast: bool = True,
    early_exit: bool = True,
) -> Iterator[Evaluator]:
    """Make ``model`` ready; it is left as found.

    Within, gradients are on whatever the caller's mode, and convolutions on a GPU are in full
    float32: TF32 changes which images break. ``batch_size`` None is what suits the device.

    Raises:
        ValueError: images, labels or a model that no attack can work with.
    """
    if len(images) != len(labels) or len(labels) == 0:
        raise ValueError(
            f"expected one label for each of at least one image, "
            f"got {len(images)} images and {len(labels)} labels"
        )
    check_images(images)
    check_labels(images, labels)
    spent = Spent()
    if batch_size is None:
        batch_size = BATCH_SIZES.get(images.device.type, BATCH_SIZES["cuda"])
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        evaluating(model),
        torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
    ):
        quick = (fast_copy(model, images[:2]) if fast else None) or model
        check_model(quick)
        models = [model] if quick is model else [model, quick]
        handles = [_count(m, spent) for m in models]
        try:
            yield Evaluator(model, quick, spent=spent, batch_size=batch_size, early_exit=early_exit)
        finally:
            for handle in handles:
                handle.remove()


def fast_copy(model: nn.Module, images: Tensor) -> nn.Module | None:
    """Return a faster model of the same function in ``eval()``, or None.

    Args:
        model: left as found.
        images: ``(N, C, H, W)``, on which the two must agree.
    """
    if any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules()):
        return None
    try:
        traced = fx.symbolic_trace(copy.deepcopy(model))
        _fold_batch_norms(traced)
        _relu_in_place(traced)
        traced.recompile()
        for weight in traced.parameters():
            weight.requires_grad_(False)
            if weight.ndim == 4:
                weight.data = channels_last(weight.data)
        expected, got = logits_of(model, images), logits_of(traced, images)
    except Exception:  # noqa: BLE001  anybody's model: whatever cannot be traced is run as it is
        return None
    largest = expected.abs().max().item()
    close = (expected - got).abs().max().item() <= AGREEMENT * max(largest, 1e-30)
    return traced if math.isfinite(largest) and close else None


def channels_last(v: Tensor) -> Tensor:
    """Return a copy of ``(N, C, H, W)`` in channels_last strides, also where C or H x W is 1.

    torch's own conversion leaves such a tensor alone, and convolutions then take it, and all that
    follows, for contiguous.
    """
    n, c, h, w = v.shape
    restrided = v.new_empty(n * c * h * w).as_strided((n, c, h, w), (c * h * w, 1, c * w, c))
    return restrided.copy_(v)


def _fold_batch_norms(traced: fx.GraphModule) -> None:
    """Fold every batch norm that alone reads a convolution into it."""
    for before, conv, node, norm in _behind_convolutions(traced):
        once = _calls(traced, before) == _calls(traced, node) == 1  # a shared one stays as it is
        if isinstance(norm, nn.BatchNorm2d) and norm.track_running_stats and once:
            traced.set_submodule(str(before.target), fuse_conv_bn_eval(conv, norm))
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)


def _relu_in_place(traced: fx.GraphModule) -> None:
    """Let a ReLU that alone reads a convolution write over it."""
    for _, _, node, relu in _behind_convolutions(traced):
        if isinstance(relu, nn.ReLU):
            name = f"{node.target}_in_place".replace(".", "_")
            traced.add_submodule(name, nn.ReLU(inplace=True))
            node.target = name


def _behind_convolutions(
    traced: fx.GraphModule,
) -> list[tuple[fx.Node, nn.Conv2d, fx.Node, nn.Module]]:
    """Return every convolution that one module alone reads, and that module."""
    modules = dict(traced.named_modules())
    found = []
    for node in traced.graph.nodes:
        before = node.args[0] if node.args else None
        if not (node.op == "call_module" and isinstance(before, fx.Node)):
            continue
        conv = modules.get(str(before.target)) if before.op == "call_module" else None
        if isinstance(conv, nn.Conv2d) and len(before.users) == 1:
            found.append((before, conv, node, modules[str(node.target)]))
    return found


def _calls(traced: fx.GraphModule, node: fx.Node) -> int:
    """Return how often the node's module is called."""
    return sum(n.op == "call_module" and n.target == node.target for n in traced.graph.nodes)


def _ordinary(v: Tensor) -> Tensor:
    """Return ``v``, copied if it was made under ``inference_mode``: such have no gradients."""
    return v.clone() if v.is_inference() else v


def _count(model: nn.Module, spent: Spent) -> Any:
    """Count images through ``model`` until the returned handle is removed."""

    def hook(_module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        spent.forwards += len(inputs[0])
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(backward)

    def backward(gradient: Tensor) -> None:
        spent.backwards += len(gradient)

    return model.register_forward_hook(hook)
