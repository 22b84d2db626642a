"""A fast copy of a model: the same function, and its gradients sooner.

Batch norms are folded into the convolutions before them, weights stand in channels_last, and ReLUs
write in place. The model is traced with ``torch.fx``; one that cannot be copied or traced, has
hooks, draws random numbers, switches gradients or autocast on or off, answers otherwise than its
copy, or otherwise to an image alone, has none and is attacked as it is.
"""

from __future__ import annotations

import copy
import pickle
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from metrics.answers import answer, gradient_of
from metrics.engine.intake import IntakeConv2d

AGREEMENT = 1e-3  # largest difference of the copy's logits or gradients, over the image's largest
EXACT_AGREEMENT = 1e-6  # the same in float64
FLOOR = 1e-3  # of the largest of all images: an image's own is taken for at least so large
LOOKED_AT = 32  # images on which the logits of the two are compared
ALIASES = frozenset(
    "view reshape flatten transpose permute squeeze unsqueeze getitem chunk split narrow select "
    "unflatten expand t movedim swapaxes view_as unbind detach".split()
)  # what may share the memory of its argument
PROBES = 4  # random images on which the two are compared, beside two of those to be attacked


def fast_copy(model: nn.Module, images: Tensor) -> fx.GraphModule | None:
    """Return a faster model of the same function in ``eval()``, or None.

    Args:
        model: left as found.
        images: ``(N, C, H, W)``, to be attacked. On two of them, and on random ones in the box
            (blank images agree whatever was lost), logits and input gradients of the two agree.
    """
    if any(_is_changed(module) for module in model.modules()) or _global_hooks():
        return None
    probes = _probes(images)
    try:
        state = _random_state(probes.device)
        expected = _answers(model, probes)
        if state != _random_state(probes.device) or not _tells(expected):
            return None
        if not _near(expected[0][-2:-1], expected[0][-1:], AGREEMENT):
            return None  # what breaks an image hangs on which others are looked at with it
        quick = folded(copied(model))
        logits, gradients = _agree(expected, _answers(quick, probes), AGREEMENT)
        # A recording draws anew what the model draws from a seed of its own.
        drawn = state != _random_state(probes.device)
        if drawn or not (logits and _same_logits(model, quick, images)):
            return None
        if gradients:
            return quick
        # In float32 a ReLU may round to the other side of its kink; in float64 hardly any does,
        # where the folding is done in float64 too.
        exact = copied(model).double()
        expected = _answers(exact, probes.double())
        got = _answers(folded(exact), probes.double())  # of which ``exact`` is a part now
        return quick if all(_agree(expected, got, EXACT_AGREEMENT)) else None
    except Exception:  # noqa: BLE001  anybody's model: whatever cannot be traced is run as it is
        return None


def copied(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` that shares nothing with it.

    Raises:
        ValueError: a part of it is its own copy.
    """
    other = copy.deepcopy(model)
    for kind in (nn.Module.modules, nn.Module.parameters, nn.Module.buffers):
        if set(map(id, kind(model))) & set(map(id, kind(other))):
            raise ValueError("model: expected parts that can be copied, got one that is shared")
    return other


def channels_last(v: Tensor) -> Tensor:
    """Return a copy of ``(N, C, H, W)`` in channels_last strides, also where C or H x W is 1.

    torch's own conversion leaves such a tensor alone, and convolutions then take it, and all that
    follows, for contiguous.
    """
    n, c, h, w = v.shape
    restrided = v.new_empty(n * c * h * w).as_strided((n, c, h, w), (c * h * w, 1, c * w, c))
    return restrided.copy_(v)


def folded(model: nn.Module) -> fx.GraphModule:
    """Return the traced model, made faster; it takes the model's own modules.

    ``meta["folded"]`` names the convolutions that took up a batch norm, and that norm.

    Its memory is free as soon as nobody holds it: cycles are cut that would wait for a collection.

    Raises:
        Exception: anybody's model: whatever tracing it comes to.
    """
    tracer = _Tracer()
    traced = fx.GraphModule(model, tracer.trace(model))
    vars(tracer).clear()  # closures of its own hold it, and it the model
    if any(_writes_through_a_view(node) for node in traced.graph.nodes):
        raise ValueError("a view is written to: the copy's views may be copies")
    traced.meta["folded"] = _fold_batch_norms(traced)
    _relu_in_place(traced)
    _views_to_reshapes(traced)
    _faster_intake(traced)
    traced.recompile()
    # torch's gradient of an instance norm is wrong in channels_last where the batch is one image.
    fast = not any(isinstance(m, nn.InstanceNorm2d) for m in traced.modules())
    for weight in traced.parameters():
        weight.requires_grad_(False)
        if weight.ndim == 4:
            weight.data = channels_last(weight.data) if fast else weight.data.contiguous()
    traced.graph.owning_module = None
    return traced


class _Tracer(fx.Tracer):
    """Refuses what a recording loses: whether gradients and autocast were on at an operation."""

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        self._expected = _switches()
        return super().trace(root, concrete_args)

    def create_proxy(self, *args: Any, **kwargs: Any) -> fx.Proxy:
        if _switches() != self._expected:
            raise ValueError("gradients or autocast are switched in the model's forward")
        return super().create_proxy(*args, **kwargs)


def _switches() -> tuple[bool, ...]:
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        *(torch.is_autocast_enabled(device) for device in ("cpu", "cuda")),
    )


def _probes(images: Tensor) -> Tensor:
    """Return two of ``images``, and random ones like them."""
    draws = torch.Generator(device="cpu").manual_seed(0)
    shape = (PROBES, *images.shape[1:])
    drawn = torch.rand(shape, generator=draws, device="cpu", dtype=torch.float32)
    return torch.cat([images[:2].detach(), drawn.to(images)])


def _random_state(device: torch.device) -> list[Any]:
    """Return the states of all generators that a model on ``device`` may draw from."""
    states: list[Any] = [torch.get_rng_state().numpy().tobytes(), random.getstate()]
    state = np.random.get_state(legacy=False)  # noqa: NPY002  the one that a model may draw from
    states.append(pickle.dumps(state))
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device).numpy().tobytes())
    return states


def _same_logits(model: nn.Module, quick: fx.GraphModule, images: Tensor) -> bool:
    """Whether the two have the same logits on images from all over those to be attacked."""
    some = images[:: max(1, len(images) // LOOKED_AT)][:LOOKED_AT].detach()
    with torch.no_grad():
        pairs = answer(model, some), answer(quick.forward, some)
    return _near(*pairs, AGREEMENT)


def _answers(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits without gradients and with, and the gradient of a fixed mixture of them.

    The last image is asked of a second time, alone: kernels differ for a batch of one.
    """
    together, alone = _answers_to(model, images), _answers_to(model, images[-1:])
    return tuple(map(torch.cat, zip(together, alone, strict=True)))  # type: ignore[return-value]


def _answers_to(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # forward() itself: the call of a recorded module prints a traceback before it raises.
    call = model.forward if isinstance(model, fx.GraphModule) else model
    with torch.no_grad():
        plain = answer(call, images)
    x = images.clone().requires_grad_()
    logits = answer(call, x)
    weights = torch.arange(1, logits.shape[1] + 1, device=x.device).sin()
    return plain, logits.detach(), gradient_of((logits * weights).sum(), x)


def _tells(answers: tuple[Tensor, Tensor, Tensor]) -> bool:
    """Whether answers tell two functions apart: their own gradients are not zero everywhere."""
    return bool((answers[2][-PROBES:] != 0).any())


def _agree(
    expected: tuple[Tensor, Tensor, Tensor], got: tuple[Tensor, Tensor, Tensor], tolerance: float
) -> tuple[bool, bool]:
    """Whether logits, and gradients, of every image are the same; those with a NaN are not."""
    same = [_near(a, b, tolerance) for a, b in zip(expected, got, strict=True)]
    return same[0] and same[1], same[2]


def _near(expected: Tensor, got: Tensor, tolerance: float) -> bool:
    size = expected.flatten(1).abs().amax(dim=1)
    apart = (expected - got).flatten(1).abs().amax(dim=1)
    return bool((apart <= tolerance * size.clamp_min(FLOOR * float(size.max()))).all())


def _global_hooks() -> bool:
    module: Any = torch.nn.modules.module
    return bool(module._has_any_global_hook())


def _is_changed(module: nn.Module) -> bool:
    """Whether a module does more than its class says: by hooks, or a forward of its own."""
    return "forward" in vars(module) or any(
        getattr(module, f"_{kind}_hooks")
        for kind in ("forward", "forward_pre", "backward", "backward_pre")
    )


def _fold_batch_norms(traced: fx.GraphModule) -> dict[str, str]:
    """Fold every batch norm that alone reads a convolution into it; return their names."""
    names = {}
    for before, conv, node, norm in _behind_convolutions(traced):
        once = _calls(traced, before) == _calls(traced, node) == 1  # a shared one stays as it is
        if isinstance(norm, nn.BatchNorm2d) and norm.track_running_stats and once:
            traced.set_submodule(str(before.target), fuse_conv_bn_eval(conv, norm))
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
            names[str(before.target)] = str(node.target)
    return names


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


def _writes_through_a_view(node: fx.Node) -> bool:
    """Whether an operation writes to what shares memory with something else."""
    target = node.args[0] if node.args else None
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    module: Any = None
    if node.op == "call_module":
        module = node.graph.owning_module.get_submodule(str(node.target))  # type: ignore[union-attr]
    writes = (
        (name.endswith("_") and not name.endswith("__"))
        or name in ("setitem", "iadd", "isub", "imul", "itruediv")
        or bool(node.kwargs.get("inplace"))
        or bool(getattr(module, "inplace", False))
    )
    if not (writes and isinstance(target, fx.Node)):
        return False
    made_by = target.target if isinstance(target.target, str) else target.target.__name__
    return name == "setitem" or (target.op != "call_module" and made_by in ALIASES)


def _views_to_reshapes(traced: fx.GraphModule) -> None:
    """Let what was written for contiguous tensors take those in channels_last."""
    for node in traced.graph.nodes:
        types = any(isinstance(argument, torch.dtype) for argument in node.args)
        if node.op == "call_method" and node.target == "view" and not types:
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
