"""A model made ready to be attacked: a fast copy of it, and a count of what an evaluation spends.

The copy computes the same function with batch norms folded into the convolutions before them,
weights in channels_last, and in-place ReLUs. It is traced with ``torch.fx``; a model that cannot
be copied or traced, has hooks, or answers otherwise than its copy is attacked as it is. Rounding
differs in the copy, so nothing counts as broken until the model itself has misclassified the image.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
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
    gradient_of,
    logits_of,
    misclassified,
)
from metrics.engine.intake import IntakeConv2d

BATCH_SIZES = {"cpu": 100, "cuda": 1000}  # 100: the fastest of 50 ... 2,000 on a CPU, by up to 2 x
AGREEMENT = 1e-3  # largest difference of the copy's logits or gradients, over the largest of them
EXACT_AGREEMENT = 1e-6  # the same in float64


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
        """Return what ``attack`` finds; what is broken, the model itself misclassifies.

        Each batch draws from a generator of its own: what one batch draws, and when it stops,
        plays no part in the next.
        """
        xs, ys = images.split(self.batch_size), labels.split(self.batch_size)
        device = images.device if generator is None else generator.device
        seeds = torch.randint(2**62, (len(xs),), generator=generator, device=device).tolist()
        batches = [
            self._search(attack, x.detach(), y.long(), partial(_seeded, device, s))
            for x, y, s in zip(xs, ys, seeds, strict=True)
        ]
        return Found(
            torch.cat([found.images for found in batches]),
            torch.cat([found.broken for found in batches]),
            torch.cat([found.zero_gradients for found in batches]),
            torch.cat([found.nonfinite_gradients for found in batches]),
        )

    def _search(
        self,
        attack: Attack,
        x: Tensor,
        labels: Tensor,
        generator: Callable[[], torch.Generator],
    ) -> Found:
        x, labels = _ordinary(x), _ordinary(labels)
        found = self._once(attack, self.quick, x, labels, generator)
        if self.quick is self.model:
            return found
        broken = found.broken.nonzero().squeeze(1)
        rounded = broken[~self.wrong(found.images[broken], labels[broken])]
        if len(rounded):
            again = self._once(attack, self.model, x, labels, generator)  # with the same draws
            found.images[rounded] = again.images[rounded]
            found.broken[rounded] = again.broken[rounded]
        return found

    def _once(
        self,
        attack: Attack,
        model: nn.Module,
        x: Tensor,
        labels: Tensor,
        generator: Callable[[], torch.Generator],
    ) -> Found:
        return attack.search(model, x, labels, generator(), early_exit=self.early_exit)


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
    check_model(model)
    spent = Spent()
    if batch_size is None:
        batch_size = BATCH_SIZES.get(images.device.type, BATCH_SIZES["cuda"])
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        evaluating(model),
        full_float32(),
    ):
        quick = (fast_copy(model, images[:2]) if fast else None) or model
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
        images: ``(N, C, H, W)``, on which logits and input gradients of the two must agree
            (tracing loses a ``no_grad`` in the model's forward, for one).
    """
    if any(_has_hooks(module) for module in model.modules()):
        return None
    try:
        quick = _folded(copy.deepcopy(model))
        logits, gradients = _agree(model, quick, images, AGREEMENT)
        if not logits:
            return None
        if gradients:
            return quick
        # In float32 a ReLU may round to the other side of its kink; in float64 hardly any does,
        # where the folding is done in float64 too.
        exact = copy.deepcopy(model).double()
        other = _folded(copy.deepcopy(exact))
        return quick if all(_agree(exact, other, images[:1].double(), EXACT_AGREEMENT)) else None
    except Exception:  # noqa: BLE001  anybody's model: whatever cannot be traced is run as it is
        return None


@contextmanager
def full_float32() -> Iterator[None]:
    """Keep cuDNN from rounding to TF32, and leave its other settings as they are."""
    cudnn = torch.backends.cudnn
    with cudnn.flags(
        enabled=cudnn.enabled,
        benchmark=cudnn.benchmark,
        deterministic=cudnn.deterministic,
        allow_tf32=False,
    ):
        yield


def channels_last(v: Tensor) -> Tensor:
    """Return a copy of ``(N, C, H, W)`` in channels_last strides, also where C or H x W is 1.

    torch's own conversion leaves such a tensor alone, and convolutions then take it, and all that
    follows, for contiguous.
    """
    n, c, h, w = v.shape
    restrided = v.new_empty(n * c * h * w).as_strided((n, c, h, w), (c * h * w, 1, c * w, c))
    return restrided.copy_(v)


def _folded(model: nn.Module) -> fx.GraphModule:
    """Return the traced model, made faster; it takes the model's own modules."""
    traced = fx.symbolic_trace(model)
    _fold_batch_norms(traced)
    _relu_in_place(traced)
    _views_to_reshapes(traced)
    _faster_intake(traced)
    traced.recompile()
    for weight in traced.parameters():
        weight.requires_grad_(False)
        if weight.ndim == 4:
            weight.data = channels_last(weight.data)
    return traced


def _agree(
    model: nn.Module, other: nn.Module, images: Tensor, tolerance: float
) -> tuple[bool, bool]:
    """Whether logits, and gradients, of two models are the same; those with a NaN are not."""
    answers = [_logits_and_gradient(m, images) for m in (model, other)]
    logits, gradients = (
        bool((expected - got).abs().max() <= tolerance * expected.abs().max())
        for expected, got in zip(*answers, strict=True)
    )
    return logits, gradients


def _logits_and_gradient(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits, and the input gradient of a fixed mixture of them."""
    x = images.detach().clone().requires_grad_()
    logits = model(x.clone())
    weights = torch.arange(1, logits.shape[1] + 1, device=x.device).sin()
    return logits.detach(), gradient_of((logits * weights).sum(), x)


def _has_hooks(module: nn.Module) -> bool:
    return any(
        getattr(module, f"_{kind}_hooks")
        for kind in ("forward", "forward_pre", "backward", "backward_pre")
    )


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


def _faster_intake(traced: fx.GraphModule) -> None:
    """Give convolutions over the image's few channels a faster gradient."""
    for name, module in list(traced.named_modules()):
        if isinstance(module, nn.Conv2d) and IntakeConv2d.fits(module):
            module.weight.data = channels_last(module.weight.data)
            traced.set_submodule(name, IntakeConv2d(module))


def _views_to_reshapes(traced: fx.GraphModule) -> None:
    """Let what was written for contiguous tensors take those in channels_last."""
    for node in traced.graph.nodes:
        if node.op == "call_method" and node.target == "view":
            node.target = "reshape"


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


def _seeded(device: torch.device, seed: int) -> torch.Generator:
    return torch.Generator(device=device).manual_seed(seed)


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
