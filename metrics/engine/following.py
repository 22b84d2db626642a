"""A fast copy that follows its model while that is trained: refreshed in place, never made anew.

A training attack wants the gradient by the images alone, of a model that changes at every step.
The copy of :mod:`metrics.engine.folding` gives it sooner; here its folded weights are written again
from the model's, without a trace or an allocation of weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from metrics.answers import gradient_of, logits_of
from metrics.engine.folding import AGREEMENT, fast_copy
from metrics.engine.intake import IntakeConv2d
from metrics.left_as_found import evaluating
from metrics.precision import full_float32, widened

BF16_AGREEMENT = 0.1  # largest difference of a bfloat16 copy's logits, over the image's largest


class Follower:
    """A fast copy and the model whose function it has in ``eval()``; made by :func:`follower`.

    Attributes:
        module: the copy, frozen; in bfloat16 it takes float32 images and gives float32 gradients.
    """

    def __init__(self, model: nn.Module, module: fx.GraphModule, dtype: torch.dtype) -> None:
        self.model, self.module, self.dtype = model, module, dtype
        norms: dict[str, str] = module.meta["folded"]
        self._folded: list[tuple[Any, Any, Any]] = [
            (module.get_submodule(name), model.get_submodule(name), model.get_submodule(norm))
            for name, norm in norms.items()
        ]
        inside = {id(v) for conv, _, _ in self._folded for v in conv.parameters()}
        own = _named(model)
        self._copied: list[tuple[Tensor, Tensor]] = []
        self._intakes: list[tuple[IntakeConv2d, Any]] = []
        for name, part in module.named_modules():
            if isinstance(part, IntakeConv2d) and name not in norms:
                self._intakes.append((part, model.get_submodule(name)))
        at_intakes = {id(v) for conv, _ in self._intakes for v in conv.parameters()}
        for name, tensor in _named(module).items():
            if id(tensor) not in inside | at_intakes and name in own:
                self._copied.append((tensor, own[name]))

    @torch.no_grad()
    def refresh(self) -> None:
        """Take the model's weights and statistics of now."""
        for conv, source, norm in self._folded:
            scale = (norm.running_var + norm.eps).rsqrt_()
            if norm.weight is not None:
                scale.mul_(norm.weight)
            mean = norm.running_mean if source.bias is None else norm.running_mean - source.bias
            bias = mean.mul(scale).neg_()
            if norm.bias is not None:
                bias.add_(norm.bias)
            _put(conv, source.weight * scale.view(-1, 1, 1, 1), bias)
        for intake, source in self._intakes:
            _put(intake, source.weight, source.bias)
        for mine, theirs in self._copied:
            mine.copy_(theirs)

    def agrees(self, images: Tensor) -> bool:
        """Whether the refreshed copy answers to a few images as the model in ``eval()`` does."""
        self.refresh()
        with torch.inference_mode(False), torch.enable_grad(), full_float32():
            with evaluating(self.model):
                expected = logits_of(self.model, images)
            got = logits_of(self.module, images)
        size = expected.abs().amax(dim=1)
        apart = (expected - got).abs().amax(dim=1)
        least = AGREEMENT if self.dtype == torch.float32 else BF16_AGREEMENT
        return bool((apart <= least * size.clamp_min(0.1 * float(size.max()))).all())


def follower(
    model: nn.Module, images: Tensor, dtype: torch.dtype = torch.float32
) -> Follower | None:
    """Return a copy that follows ``model``, or None where it has no fast copy.

    Args:
        model: left as found.
        images: ``(N, C, H, W)``, on some of which the two are compared.
        dtype: float32, or bfloat16: whatever has weights computes in it then, what stands before
            the first of these (a normalisation) in float32.
    """
    with torch.inference_mode(False), torch.enable_grad(), full_float32(), evaluating(model):
        module = fast_copy(model, images)
        if module is None:
            return None
        if dtype != torch.float32:
            _narrow(module, dtype)
        try:
            made = Follower(model, module, dtype)
            some = images[:2].detach().clone().requires_grad_()
            gradient_of(widened(module(some)).sum(), some)
        except (AttributeError, RuntimeError):
            return None  # what folding found is not where it was, or a type does not fit
    return made if made.agrees(images[:4]) else None


def _narrow(module: fx.GraphModule, dtype: torch.dtype) -> None:
    """Let modules with weights compute in ``dtype``, what comes before the first in float32."""
    graph = module.graph
    wide: set[fx.Node] = set()
    for node in list(graph.nodes):
        inputs = node.all_input_nodes
        if node.op in ("placeholder", "get_attr"):
            wide.add(node)
        elif node.op == "call_module" and _has_weights(module.get_submodule(str(node.target))):
            for before in [n for n in inputs if n in wide]:
                with graph.inserting_before(node):
                    node.replace_input_with(before, graph.call_method("to", (before, dtype)))
        elif inputs and all(n in wide for n in inputs):
            wide.add(node)
    for part in module.modules():
        keeps = isinstance(part, nn.modules.batchnorm._NormBase)  # statistics need their digits
        if keeps or not any(True for _ in part.parameters(recurse=False)):
            continue
        for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(dtype)
    module.recompile()


def _has_weights(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


def _named(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _put(conv: Any, weight: Tensor, bias: Tensor | None) -> None:
    """Write a convolution's weights in place."""
    if isinstance(conv, IntakeConv2d):
        conv.put(weight, bias)
        return
    conv.weight.copy_(weight)
    if bias is not None:
        conv.bias.copy_(bias)
