"""Every operation of torch that is known. Open this to add one: a function, and a line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from metrics.bounds.activations import ACTIVATIONS
from metrics.bounds.reading import arithmetic, layers, pools, shapes
from metrics.bounds.reading.reader import Reader, Ref, only


def _activation(make: Callable[..., Any]) -> Callable[..., Ref]:
    def read(reader: Reader, node: Any, x: Any, *settings: Any, **named: Any) -> Ref:
        only(node, x, *settings)
        return reader.step(node, make(*settings, **named), x)

    return read


READERS: dict[str, Callable[..., Any]] = {
    **{name: _activation(make) for name, make in ACTIVATIONS.items()},
    "lp_pool2d": pools.power_pool,
    "conv2d": layers.convolution,
    "linear": layers.dense,
    "addmm": layers.addmm,
    "matmul": layers.matmul,
    "mm": layers.matmul,
    "batch_norm": layers.batch_norm,
    "add": arithmetic.total,
    "sub": arithmetic.difference,
    "rsub": arithmetic.difference_from,
    "mul": arithmetic.product,
    "div": arithmetic.quotient,
    "neg": arithmetic.negative,
    "cat": arithmetic.concatenation,
    "zeros_like": arithmetic.zeros,
    "ones_like": arithmetic.ones,
    "max_pool2d": pools.max_pool,
    "avg_pool2d": pools.average_pool,
    "adaptive_avg_pool2d": pools.adaptive_average,
    "adaptive_max_pool2d": pools.adaptive_max,
    "mean": pools.mean,
    "sum": pools.total,
    "amax": pools.amax,
    "flatten": shapes.moved,
    "view": shapes.moved,
    "reshape": shapes.moved,
    "_unsafe_view": shapes.moved,
    "squeeze": shapes.moved,
    "unsqueeze": shapes.moved,
    "permute": shapes.permuted,
    "transpose": shapes.transposed,
    "slice": shapes.sliced,
    "chunk": shapes.chunks,
    "split": shapes.chunks,
    "split_with_sizes": shapes.chunks,
    "select": shapes.selected,
    "roll": shapes.rolled,
    "pad": shapes.padded,
    "dropout": shapes.dropout,
    "feature_dropout": shapes.dropout,
    "alpha_dropout": shapes.dropout,
    "clone": shapes.same,
    "contiguous": shapes.same,
    "alias": shapes.same,
    "detach": shapes.same,
    "lift_fresh_copy": shapes.same,
    "to": shapes.cast,
    "_to_copy": shapes.cast,
    "softmax": layers.softmax,
    "log_softmax": layers.softmax,
}
"""torch's name, without its overload -> what reads it."""
