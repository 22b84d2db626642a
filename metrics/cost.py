"""What a model costs: parameters and multiply-accumulates.

Torch's counter has no formula for some operations, and what it does not know counts as nothing:
recurrent layers in one kernel, products with a vector, attention on a CPU. ``COUNTED`` has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.backends import mha
from torch.utils.flop_counter import FlopCounterMode

from metrics.left_as_found import evaluating
from metrics.metric import Metric

aten = torch.ops.aten
Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Cost(Metric):
    """Trainable parameters, and multiply-accumulates for one image."""

    default_label: ClassVar[str] = ""
    suffixes: ClassVar[tuple[str, ...]] = ("parameters", "macs")

    def measure(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> tuple[float, ...]:
        return parameters(model), macs(model, images[:1])


def parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def macs(model: nn.Module, image: Tensor) -> int:
    """Return the multiply-accumulates of convolutions and matrix products for one image.

    Counted is what runs, in products of matrices and vectors: layers and functions alike, of
    recurrent layers every step, of attention both products over the whole square, masked or not.
    Elementwise products, sums and lookups are not.

    Args:
        model: left as found.
        image: ``(1, C, H, W)``.

    Raises:
        ValueError: the model does not run with one image alone.
    """
    counter = FlopCounterMode(display=False, custom_mapping=_twice(COUNTED))
    counter.mod_tracker = _Whole()  # type: ignore[assignment]
    with torch.no_grad(), evaluating(model), _layer_by_layer(), counter:
        try:
            model(image)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            why = str(error).strip().partition("\n")[0]
            raise ValueError(
                f"macs: expected a model that runs with one image {tuple(image.shape)} alone, got "
                f"{type(error).__name__}: {why}"
            ) from error
    return counter.get_total_flops() // 2


# ------------------------------------------------------------------------------------------- parts


class _Whole(nullcontext[None]):
    """In place of the counter's tracker of modules, which fails where a forward takes gradients."""

    parents = ("Global",)


@contextmanager
def _layer_by_layer() -> Iterator[None]:
    """Keep transformer layers from running as one operation, on tensors without a shape if masked.

    A scripted layer runs as one all the same, unmasked: ``COUNTED`` has it too.
    """
    before = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        mha.set_fastpath_enabled(before)


def _each_step(x: Shape, *settings: Any) -> int:
    """Every step of every sequence goes once through each matrix; biases are vectors."""
    return prod(x[:-1]) * sum(prod(m) for m in settings if isinstance(m, tuple) and len(m) == 2)


def _attention(query: Shape, key: Shape, value: Shape, *_: Any) -> int:
    """Scores, then their mean of the values; several heads of queries may share a key."""
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


COUNTED: dict[Any, Callable[..., int]] = {
    aten.dot: lambda a, b: prod(a),
    aten.vdot: lambda a, b: prod(a),
    aten.mv: lambda a, b: prod(a),
    aten.addmv: lambda c, a, b: prod(a),
    aten.addr: lambda c, a, b: prod(a) * prod(b),
    aten.addbmm: lambda c, a, b: prod(a) * b[-1],
    # x W y for each output's W: x W first
    aten._trilinear: lambda x, w, y, *_: prod(x[:-1]) * w[0] * y[-1] * (x[-1] + 1),
    aten.mkldnn_rnn_layer: lambda x, w0, w1, *_: _each_step(x, w0, w1),
    aten._cudnn_rnn: lambda x, weights, *_: _each_step(x, *weights),
    aten._native_multi_head_attention: lambda x, *more: (
        _each_step(x, *more[:7]) + _attention(x, x, x)
    ),
    aten._transformer_encoder_layer_fwd: lambda x, *more: (
        _each_step(x, *more[:16]) + _attention(x, x, x)
    ),
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention: _attention,
    aten._scaled_dot_product_efficient_attention: _attention,
    aten._scaled_dot_product_cudnn_attention: _attention,
}
"""Operation -> multiply-accumulates from the shapes of its arguments, where torch has none."""


def _twice(counted: dict[Any, Callable[..., int]]) -> dict[Any, Callable[..., int]]:
    """Return formulas of floating-point operations, two a multiply-accumulate."""

    def flops(count: Callable[..., int]) -> Callable[..., int]:
        return lambda *shapes, out_shape=None, **settings: 2 * count(*shapes)

    return {operation: flops(count) for operation, count in counted.items()}
