"""A fast copy of a model: the same function, and its gradients sooner.

Batch norms are folded into the convolutions before them, weights stand in channels_last, and ReLUs
write in place. The model is traced with ``torch.fx``; one that cannot be copied or traced, has
hooks, or answers otherwise than its copy, has none and is attacked as it is.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from metrics.answers import gradient_of
from metrics.engine.intake import IntakeConv2d

AGREEMENT = 1e-3  # largest difference of the copy's logits or gradients, over the largest of them


EXACT_AGREEMENT = 1e-6  # the same in float64


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
