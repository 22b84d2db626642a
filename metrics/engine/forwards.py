"""Logits of the same images under many perturbations, by forward passes alone.

Up to its first layer with weights a network is affine, as a rule: there x + s u is the image's own
part plus s times the perturbation's, which all images share. Both are computed once, and the pass
begins behind that layer. Where a network begins otherwise, it runs as it is.
"""

from __future__ import annotations

import operator

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from metrics.answers import outputs_of
from metrics.attacks.geometry import column
from metrics.checks import check_logits
from metrics.deadline import check
from metrics.engine.intake import IntakeConv2d
from metrics.precision import widened

FIRST_LAYERS = (nn.Conv2d, IntakeConv2d, nn.Linear)
AFFINE = (operator.sub, operator.add, operator.mul, operator.truediv, torch.sub, torch.add)
AGREEMENT = 1e-4  # of what lies behind the first layer, over the largest value there


class Forwards:
    """A model split behind its first layer, for forward passes of perturbed images.

    Args:
        model: a fast copy, or any model.
        images: ``(N, C, H, W)``, of which two are tried.
        clip: whether perturbed images are put back into [0, 1]: then nothing is affine.
        split: a model of somebody's own runs whole, whatever it is.
    """

    def __init__(self, model: nn.Module, images: Tensor, *, clip: bool, split: bool = True) -> None:
        self.clip, self._whole = clip, model
        self._halves = _halves(model, images) if split and not clip else None
        self._nothing: Tensor | None = None  # the share of no perturbation

    @property
    def split(self) -> bool:
        """Whether passes begin behind the first layer, where no hook of the model counts them."""
        return self._halves is not None

    @torch.no_grad()
    def begun(self, images: Tensor) -> Tensor:
        """Return what of ``images`` goes into :meth:`logits`."""
        return images if self._halves is None else self._halves[0](images.clone())

    @torch.no_grad()
    def share(self, perturbations: Tensor) -> Tensor:
        """Return what of perturbations ``(k, C, H, W)`` goes into :meth:`logits`."""
        if self._halves is None:
            return perturbations
        if self._nothing is None:
            self._nothing = self.begun(torch.zeros_like(perturbations[:1]))
        return self.begun(perturbations) - self._nothing

    @torch.no_grad()
    def logits(self, begun: Tensor, sizes: Tensor, shares: Tensor) -> Tensor:
        """Return ``(n * k, classes)``: logits of n images plus ``sizes`` times k perturbations.

        A row for each pair, those of an image together.

        Args:
            begun: of n images.
            sizes: ``(n,)``.
            shares: of k perturbations.
        """
        if self._halves is None:
            every, each = len(shares), shares.repeat(len(begun), 1, 1, 1)
            x = perturbed(
                begun.repeat_interleave(every, 0),
                sizes.repeat_interleave(every),
                each,
                clip=self.clip,
            )
            return widened(check_logits(outputs_of(self._whole, x), len(x)))
        check()
        lengths = sizes.view(-1, *[1] * begun.ndim)
        v = torch.addcmul(begun.unsqueeze(1), lengths, shares.unsqueeze(0)).flatten(0, 1)
        return widened(check_logits(self._halves[1](v), len(v)))


def perturbed(images: Tensor, sizes: Tensor, perturbations: Tensor, *, clip: bool) -> Tensor:
    """Return ``images`` plus ``sizes`` ``(n,)`` times ``perturbations``, in their own type."""
    x = torch.addcmul(widened(images), column(sizes), perturbations)
    return (x.clamp(0, 1) if clip else x).to(images.dtype)


def _halves(model: nn.Module, images: Tensor) -> tuple[fx.GraphModule, fx.GraphModule] | None:
    """Return what a recorded model does up to its first layer, and from there on."""
    if not isinstance(model, fx.GraphModule) or images.dtype not in (torch.float32, torch.float64):
        return None
    layer = _first_layer(model)
    if layer is None:
        return None
    head, tail = fx.Graph(), fx.Graph()
    seen: dict[fx.Node, fx.Node] = {}
    for node in model.graph.nodes:
        seen[node] = head.node_copy(node, seen.__getitem__)
        if node is layer:
            head.output(seen[node])
            break
    known = {layer: tail.placeholder("begun")}
    of_images: set[fx.Node] = set()
    for node in model.graph.nodes:
        if node.op == "placeholder" or of_images & set(node.all_input_nodes):
            of_images.add(node)
        if node not in seen or node not in of_images:  # what is no image's may be needed again
            known[node] = tail.node_copy(node, known.__getitem__)
    halves = fx.GraphModule(model, head), fx.GraphModule(model, tail)
    _pool_first(halves[1])
    for half in halves:  # else a cycle keeps the weights until a collection
        half.graph.owning_module = None
    return halves if _is_affine(halves[0], images) else None


def _first_layer(model: fx.GraphModule) -> fx.Node | None:
    """Return the first layer with weights, if all before it may be affine and goes into it."""
    modules = dict(model.named_modules())
    node: fx.Node = next(node for node in model.graph.nodes if node.op == "placeholder")
    while len(node.users) == 1:
        node = next(iter(node.users))
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, FIRST_LAYERS):
            return node
        if not (isinstance(module, nn.Flatten) or node.target in AFFINE):
            return None
    return None


def _is_affine(head: nn.Module, images: Tensor) -> bool:
    """Whether a far step from two images is the sum of its parts."""
    x = images[:2].detach()
    draws = torch.Generator(device="cpu").manual_seed(0)
    step = torch.randn(x.shape, generator=draws, device="cpu", dtype=torch.float32).to(x)
    with torch.no_grad():
        whole = head(x + 3 * step)
        parts = head(x.clone()) + 3 * (head(step.clone()) - head(torch.zeros_like(x)))
    return bool((whole - parts).abs().max() <= AGREEMENT * whole.abs().max())


def _pool_first(traced: fx.GraphModule) -> None:
    """Pool before a ReLU instead of behind it: the maximum is the same, of fewer values."""
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        relu = node.args[0] if node.op == "call_module" and node.args else None
        if not (isinstance(relu, fx.Node) and relu.op == "call_module" and len(relu.users) == 1):
            continue
        pool = modules[str(node.target)]
        if type(pool) is nn.MaxPool2d and isinstance(modules[str(relu.target)], nn.ReLU):
            if _by_halves(pool):
                name = f"{node.target}_by_halves".replace(".", "_")
                traced.add_submodule(name, HalvingPool())
                node.target = name
            before = relu.args[0]
            node.replace_all_uses_with(relu)
            relu.args, node.args = (node,), (before,)
            relu.append(node)
            node.append(relu)
    traced.recompile()


def _by_halves(pool: nn.MaxPool2d) -> bool:
    plain = not pool.ceil_mode and not pool.return_indices
    return plain and (pool.kernel_size, pool.stride, pool.padding, pool.dilation) in (
        (2, 2, 0, 1),
        ((2, 2), (2, 2), (0, 0), (1, 1)),
    )


class HalvingPool(nn.Module):
    """A 2 x 2 max-pool; on a CPU of four slices, since torch's own also looks for indices."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return functional.max_pool2d(x, 2)
        rows, columns = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
        higher = torch.maximum(x[:, :, 0:rows:2], x[:, :, 1:rows:2])
        return torch.maximum(higher[:, :, :, 0:columns:2], higher[:, :, :, 1:columns:2])
