"""What each operation of an exported model is: torch's name -> ours.

A reader takes the arguments of one node and answers with the step that it makes, or raises
:class:`Unknown`. To add one: a method, and a line in ``READERS``.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from metrics.bounds.activations import ACTIVATIONS
from metrics.bounds.operations import (
    Concatenation,
    Constant,
    Convolution,
    Dense,
    Operation,
    Pool,
    Ranking,
    Rearrangement,
    Scaling,
    Sum,
    adaptive_windows,
    windows,
)


class Unknown(ValueError):
    """An operation whose gain is not known."""


@dataclass(frozen=True)
class Ref:
    """A tensor that depends on the images: the number of its entry."""

    entry: int


@dataclass
class Entry:
    """A step in the making."""

    node: Any
    operation: Operation | None
    sources: tuple[int, ...]
    shape: tuple[int, ...]
    nonnegative: bool


class Reader:
    """Goes through the nodes of an exported model once.

    Args:
        exported: of ``torch.export``.
        batch: how many images it was exported with.
    """

    def __init__(self, exported: Any, batch: int) -> None:
        self.batch = batch
        self.entries: list[Entry] = []
        self._values: dict[Any, Any] = {}
        self._given = _given(exported)
        self._output = 0

    def take(self, node: Any) -> None:
        """Read one node.

        Raises:
            Unknown: the logits follow from an operation that no reader knows.
        """
        if node.op == "placeholder":
            if node.name in self._given:
                self._values[node] = _wide(self._given[node.name])
            else:
                shape = tuple(node.meta["val"].shape[1:])
                self.entries.append(Entry(node, None, (), shape, False))
                self._values[node] = Ref(0)
        elif node.op == "output":
            (found,) = node.args[0]
            value = self._values.get(found)
            if isinstance(value, Unknown):
                raise value
            if not isinstance(value, Ref):
                raise Unknown("logits that do not depend on the images")
            self._output = value.entry
        else:
            try:
                self._values[node] = self._called(node)
            except Unknown as unknown:  # of no concern where the logits do not follow from it
                unknown.args = (
                    (f"{unknown} ({place(node)})",) if "(" not in str(unknown) else unknown.args
                )
                self._values[node] = unknown

    def needed(self) -> set[int]:
        """Return the entries that the logits follow from."""
        found, left = {0}, [self._output]
        while left:
            i = left.pop()
            if i not in found:
                found.add(i)
                left += self.entries[i].sources
        return found

    def _called(self, node: Any) -> Any:
        name = _name(node)
        args = [self._of(a) for a in node.args]
        kwargs = {key: self._of(value) for key, value in node.kwargs.items()}
        if name == "getitem" and isinstance(args[0], list):
            if args[1] >= len(args[0]):
                raise Unknown("the places of a maximum")
            return args[0][args[1]]
        if (norm := self._power_pool(node)) is not None:
            return norm
        for value in _flat([*args, *kwargs.values()]):
            if isinstance(value, Unknown):
                raise value
        if not any(isinstance(v, Ref) for v in _flat([*args, *kwargs.values()])):
            return _wide(node.target(*args, **kwargs))
        plain = name.rstrip("_")
        written = name.endswith("_") and isinstance(args[0], Ref)
        if written and isinstance(self.entries[args[0].entry].operation, Rearrangement):
            raise Unknown(f"aten.{name} on a view")
        reader = READERS.get(plain)
        if reader is None and plain in ACTIVATIONS and isinstance(args[0], Ref):
            made = ACTIVATIONS[plain](*args[1:], **kwargs)
            result = self.step(node, made, args[0])
        elif reader is not None:
            result = reader(self, node, *args, **kwargs)
        else:
            raise Unknown(f"aten.{name}")
        if written:  # whoever reads it from now on reads what was written
            for key, value in list(self._values.items()):
                if value == args[0]:
                    self._values[key] = result
        return result

    def _of(self, argument: Any) -> Any:
        """Return what stands for an argument: constants, Refs, or lists of them."""
        if isinstance(argument, torch.fx.Node):
            return self._values[argument]
        if isinstance(argument, list | tuple):
            return [self._of(a) for a in argument]
        return argument

    def step(self, node: Any, operation: Operation, *sources: Ref) -> Ref:
        """Add a step, whose shape is the node's, and return what stands for it."""
        return self.add(node, operation, tuple(node.meta["val"].shape), *sources)

    def add(self, node: Any, operation: Operation, shape: Sequence[int], *sources: Ref) -> Ref:
        """Add a step of ``shape``, batch first.

        Raises:
            Unknown: the batch is not the first axis any more.
        """
        if not shape or shape[0] != self.batch:
            raise Unknown(f"aten.{_name(node)} over the images of a batch")
        signs = all(self.entries[s.entry].nonnegative for s in sources)
        sign = operation.nonnegative or (operation.keeps_sign and signs)
        self.entries.append(
            Entry(node, operation, tuple(s.entry for s in sources), tuple(shape[1:]), sign)
        )
        return Ref(len(self.entries) - 1)

    def shape(self, ref: Ref) -> tuple[int, ...]:
        """Return the shape of a step's output, without the batch."""
        return self.entries[ref.entry].shape

    def spread(self, node: Any, ref: Ref, shape: Sequence[int]) -> Ref:
        """Return ``ref`` repeated to ``shape``, batch first, as arithmetic does."""
        own = (self.batch, *self.shape(ref))
        if tuple(shape) == own:
            return ref
        if len(own) != len(shape):
            raise Unknown(f"aten.{_name(node)} of {own} and {tuple(shape)}")
        inner = tuple(shape[1:])
        copies = math.prod(inner) // max(1, math.prod(own[1:]))
        grown = Rearrangement("expand", lambda x: x.expand(len(x), *inner), copies)
        return self.add(node, grown, shape, ref)

    def _power_pool(self, node: Any) -> Ref | None:
        """Return the pool that ends in this node, where it is the last of torch's ``lp_pool2d``.

        That is (sign(a) relu(|a|) k)^(1/p) with a the average of x^p over windows of k.
        """
        if _name(node) != "pow" or not isinstance(node.args[1], float | int):
            return None
        chain = _chain(node, ("mul", "mul", "sign", "avg_pool2d", "pow"))
        if chain is None:
            return None
        average, powered = chain[3], chain[4]
        x, power = self._of(powered.args[0]), float(powered.args[1])
        if not isinstance(x, Ref):
            return None
        k = math.prod(_pair(average.args[1]))
        if not (power >= 1 and math.isclose(node.args[1] * power, 1) and chain[0].args[1] == k):
            return None
        if power % 2 and not self.entries[x.entry].nonnegative:
            raise Unknown(f"an L_{power:g} pool of values that may be negative")
        return self._pool(
            node,
            "power",
            x,
            *average.args[1:],
            function=lambda v, *window: functional.lp_pool2d(
                v, power, window[0], window[1], bool(average.args[4:] and average.args[4])
            ),
            power=power,
        )

    def _pool(
        self,
        node: Any,
        kind: str,
        x: Ref,
        kernel: Any,
        stride: Any = (),
        padding: Any = 0,
        *rest: Any,
        dilation: Any = 1,
        function: Callable[..., Tensor],
        shape: Sequence[int] | None = None,
        **settings: Any,
    ) -> Ref:
        k, p, d = _pair(kernel), _pair(padding), _pair(dilation)
        s = _pair(stride) if stride else k
        shape = tuple(node.meta["val"].shape) if shape is None else tuple(shape)
        if len(shape) != 4:
            raise Unknown(f"aten.{_name(node)} of {len(shape)} axes")
        axes = [
            windows(size, k[a], s[a], p[a], d[a], out)
            for a, (size, out) in enumerate(zip(self.shape(x)[1:], shape[2:], strict=True))
        ]
        pool = Pool(kind, *axes, lambda v: function(v, k, s, p, d), kernel=k, **settings)
        return self.add(node, pool, shape, x)

    def convolution(
        self,
        node: Any,
        x: Any,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Ref:
        """conv2d, also with padding by name."""
        _only(node, x, weight, bias)
        d, k = _pair(dilation), tuple(weight.shape[2:])
        if isinstance(padding, str):
            whole = [0, 0] if padding == "valid" else [d[a] * (k[a] - 1) for a in (0, 1)]
            if any(w % 2 for w in whole):
                down, right = (w % 2 for w in whole)
                x = self._padded(node, x, (0, right, 0, down), "constant", 0.0)
            padding = [w // 2 for w in whole]
        conv = Convolution(weight, bias, _pair(stride), _pair(padding), d, groups)
        return self.step(node, conv, x)

    def dense(self, node: Any, x: Any, weight: Any, bias: Any = None) -> Ref:
        """Linear."""
        _only(node, x, weight, bias)
        return self.step(node, Dense(weight, bias), x)

    def addmm(self, node: Any, bias: Any, x: Any, weight: Any) -> Ref:
        """bias + x weight."""
        _only(node, x, weight, bias)
        return self.step(node, Dense(weight.t(), bias.expand(weight.shape[1])), x)

    def matmul(self, node: Any, x: Any, weight: Any) -> Ref:
        """x weight, a matrix of constants."""
        _only(node, x, weight)
        if weight.ndim != 2:
            raise Unknown(f"aten.{_name(node)} with {weight.ndim} axes")
        return self.step(node, Dense(weight.t(), None), x)

    def batch_norm(
        self,
        node: Any,
        x: Any,
        weight: Any,
        bias: Any,
        mean: Any,
        variance: Any,
        training: bool,
        momentum: float,
        epsilon: float,
        *rest: Any,
    ) -> Ref:
        """Batch norm with running statistics."""
        if training or mean is None:
            raise Unknown("batch norm with the statistics of the batch")
        _only(node, x, weight, bias, mean, variance)
        scale = (variance + epsilon).rsqrt() * (1 if weight is None else weight)
        shift = (0 if bias is None else bias) - mean * scale
        axes = (1, -1, *(1 for _ in self.shape(x)[1:]))
        return self.step(node, Scaling(scale.view(axes), shift.view(axes)), x)

    def total(self, node: Any, a: Any, b: Any, *, alpha: float = 1) -> Ref:
        """add: of two tensors, or of one and a constant."""
        return self._total(node, a, b, float(alpha))

    def difference(self, node: Any, a: Any, b: Any, *, alpha: float = 1) -> Ref:
        """sub."""
        return self._total(node, a, b, -float(alpha))

    def _total(self, node: Any, a: Any, b: Any, factor: float) -> Ref:
        shape = tuple(node.meta["val"].shape)
        if isinstance(a, Ref) and isinstance(b, Ref):
            both = (self.spread(node, a, shape), self.spread(node, b, shape))
            return self.step(node, Sum((1.0, factor)), *both)
        if isinstance(a, Ref):
            return self._scaled(node, a, 1.0, factor * _tensor(b))
        return self._scaled(node, b, factor, _tensor(a))

    def product(self, node: Any, a: Any, b: Any) -> Ref:
        """mul by a constant."""
        if isinstance(a, Ref) and isinstance(b, Ref):
            raise Unknown(f"aten.{_name(node)} of two tensors that depend on the images")
        return self._scaled(node, a, b, 0.0) if isinstance(a, Ref) else self._scaled(node, b, a, 0)

    def quotient(self, node: Any, a: Any, b: Any, **rounding: Any) -> Ref:
        """div by a constant."""
        if not isinstance(a, Ref) or isinstance(b, Ref) or rounding.get("rounding_mode"):
            raise Unknown(f"aten.{_name(node)} by what depends on the images, or rounded")
        return self._scaled(node, a, 1 / _tensor(b), 0.0)

    def negative(self, node: Any, x: Ref) -> Ref:
        """neg."""
        return self._scaled(node, x, -1.0, 0.0)

    def _scaled(self, node: Any, x: Ref, scale: Any, shift: Any) -> Ref:
        shape = tuple(node.meta["val"].shape)
        scale, shift = _tensor(scale), _tensor(shift)
        for constant in (scale, shift):
            if constant.ndim == len(shape) and constant.shape[0] not in (1,):
                raise Unknown(f"aten.{_name(node)} with a constant for each image of a batch")
        return self.step(node, Scaling(scale, shift), self.spread(node, x, shape))

    def concatenation(self, node: Any, tensors: list[Any], axis: int = 0) -> Ref:
        """cat, constants among them."""
        shape = tuple(node.meta["val"].shape)
        axis %= len(shape)
        if axis == 0:
            raise Unknown("aten.cat along the batch")
        return self.step(
            node, Concatenation(axis), *(self._tensor_step(node, tensor) for tensor in tensors)
        )

    def _tensor_step(self, node: Any, value: Any) -> Ref:
        if isinstance(value, Ref):
            return value
        if value.shape[0] != self.batch or not (value == value[:1]).all():
            raise Unknown(f"aten.{_name(node)} with a constant for each image of a batch")
        return self._constant(node, value[0])

    def _constant(self, node: Any, value: Tensor) -> Ref:
        return self.add(node, Constant(value), (self.batch, *value.shape))

    def zeros(self, node: Any, x: Ref, **_: Any) -> Ref:
        """zeros_like."""
        return self._constant(node, torch.zeros(self.shape(x), dtype=torch.float64))

    def ones(self, node: Any, x: Ref, **_: Any) -> Ref:
        """ones_like."""
        return self._constant(node, torch.ones(self.shape(x), dtype=torch.float64))

    def max_pool(
        self,
        node: Any,
        x: Ref,
        kernel: Any,
        stride: Any = (),
        padding: Any = 0,
        dilation: Any = 1,
        ceil: bool = False,
    ) -> Ref:
        """max_pool2d."""

        def function(v: Tensor, k: Any, s: Any, p: Any, d: Any) -> Tensor:
            return functional.max_pool2d(v, k, s, p, d, ceil)

        return self._pool(
            node, "max", x, kernel, stride, padding, dilation=dilation, function=function
        )

    def average_pool(
        self,
        node: Any,
        x: Ref,
        kernel: Any,
        stride: Any = (),
        padding: Any = 0,
        ceil: bool = False,
        count_padding: bool = True,
        divisor: int | None = None,
    ) -> Ref:
        """avg_pool2d."""
        k, p = _pair(kernel), _pair(padding)
        s = _pair(stride) if stride else k
        outputs = node.meta["val"].shape[2:]
        divisors = [
            _counts(size, k[a], s[a], p[a], int(outputs[a]), padded=count_padding)
            for a, size in enumerate(self.shape(x)[1:])
        ]
        if divisor:
            ones = [torch.ones(len(v), dtype=torch.float64) for v in divisors]
            divisors = [divisor * ones[0], ones[1]]
        return self._pool(
            node,
            "average",
            x,
            kernel,
            stride,
            padding,
            function=lambda v, *window: functional.avg_pool2d(
                v, k, s, p, ceil, count_padding, divisor
            ),
            divisors=tuple(divisors),
        )

    def adaptive(self, node: Any, x: Ref, size: Any, kind: str) -> Ref:
        """Adaptive pools, global ones among them."""
        shape = self.shape(x)
        if len(shape) != 3:
            raise Unknown(f"aten.{_name(node)} of {len(shape) + 1} axes")
        out = _pair(size)
        read = [adaptive_windows(shape[a + 1], out[a]) for a in (0, 1)]
        most = tuple(max(map(len, places)) for places in read)
        counts = tuple(
            torch.tensor([len(p) for p in places], dtype=torch.float64) for places in read
        )
        if kind == "max":
            pool = Pool(kind, *read, lambda v: functional.adaptive_max_pool2d(v, out), kernel=most)
        else:
            pool = Pool(
                kind,
                *read,
                lambda v: functional.adaptive_avg_pool2d(v, out),
                divisors=counts,
                kernel=most,
            )
        return self.add(node, pool, (self.batch, shape[0], *out), x)

    def adaptive_average(self, node: Any, x: Ref, size: Any) -> Ref:
        """adaptive_avg_pool2d."""
        return self.adaptive(node, x, size, "average")

    def adaptive_max(self, node: Any, x: Ref, size: Any) -> list[Ref]:
        """adaptive_max_pool2d, whose second output, the places, nobody may read."""
        return [self.adaptive(node, x, size, "max")]

    def mean(self, node: Any, x: Ref, axes: Any = None, keep: bool = False, **_: Any) -> Ref:
        """mean over whole axes: a matrix, one row an output."""
        return self._reduced(node, x, axes, keep, "average")

    def amax(self, node: Any, x: Ref, axes: Any = (), keep: bool = False) -> Ref:
        """amax over whole axes."""
        return self._reduced(node, x, axes, keep, "max")

    def _reduced(self, node: Any, x: Ref, axes: Any, keep: bool, kind: str) -> Ref:
        shape = (self.batch, *self.shape(x))
        over = sorted(a % len(shape) for a in ([axes] if isinstance(axes, int) else axes or ()))
        if not over or 0 in over:
            raise Unknown(f"aten.{_name(node)} over the images of a batch")
        kept = [a for a in range(1, len(shape)) if a not in over]
        inner = [shape[a] for a in kept]
        size = math.prod(shape[a] for a in over)

        def line_up(v: Tensor) -> Tensor:
            return v.permute(0, *kept, *over).reshape(len(v), math.prod(inner), 1, size)

        flat = (self.batch, math.prod(inner), 1, size)
        ref = self.add(node, Rearrangement("permute", line_up, keeps_sign=True), flat, x)
        ref = self.entries_pool(node, ref, kind, size)
        out = tuple(node.meta["val"].shape)[1:]
        back = Rearrangement("reshape", lambda v: v.reshape(len(v), *out), keeps_sign=True)
        return self.add(node, back, (self.batch, *out), ref)

    def entries_pool(self, node: Any, x: Ref, kind: str, size: int) -> Ref:
        """Return one window over a row of ``size``."""
        row, one = (tuple(range(size)),), ((0,),)
        channels = self.shape(x)[0]
        count = (torch.ones(1, dtype=torch.float64), torch.full((1,), float(size)).double())
        pool = Pool(
            kind,
            one,
            row,
            (lambda v: v.mean(3, True)) if kind == "average" else (lambda v: v.amax(3, True)),
            divisors=count if kind == "average" else None,
            kernel=(1, size),
        )
        return self.add(node, pool, (self.batch, channels, 1, 1), x)

    def moved(self, node: Any, x: Ref, *args: Any, **kwargs: Any) -> Ref:
        """Whatever moves values within an image: its output is reshaped to the node's shape."""
        shape = tuple(node.meta["val"].shape)[1:]
        made = Rearrangement("reshape", lambda v: v.reshape(len(v), *shape), keeps_sign=True)
        return self.step(node, made, x)

    def permuted(self, node: Any, x: Ref, axes: Sequence[int]) -> Ref:
        """permute, the batch first."""
        order = [a % len(axes) for a in axes]
        if order[0] != 0:
            raise Unknown("aten.permute of the batch")
        made = Rearrangement("permute", lambda v: v.permute(order), keeps_sign=True)
        return self.step(node, made, x)

    def transposed(self, node: Any, x: Ref, a: int, b: int) -> Ref:
        """transpose of two axes."""
        axes = list(range(1 + len(self.shape(x))))
        axes[a], axes[b] = axes[b], axes[a]
        return self.permuted(node, x, axes)

    def sliced(
        self, node: Any, x: Ref, axis: int = 0, start: Any = None, end: Any = None, step: int = 1
    ) -> Ref:
        """slice along one axis."""
        whole = start in (None, 0) and (end is None or end >= self.batch) and step == 1
        if axis == 0 and whole:
            return x
        if axis == 0:
            raise Unknown("aten.slice of the batch")
        index = (slice(None),) * (axis % (1 + len(self.shape(x)))) + (slice(start, end, step),)
        made = Rearrangement("slice", lambda v: v[index], keeps_sign=True)
        return self.step(node, made, x)

    def chunks(self, node: Any, x: Ref, *args: Any) -> list[Ref]:
        """chunk and split along an axis."""
        name = _name(node)
        whole = torch.empty(self.batch, *self.shape(x), device="meta")
        cut = torch.chunk if name == "chunk" else torch.split
        parts, axis = cut(whole, *args), (args[1] if len(args) > 1 else 0) % whole.ndim
        if axis == 0:
            raise Unknown(f"aten.{name} of the batch")
        found, start = [], 0
        for part in parts:
            index = (slice(None),) * axis + (slice(start, start + part.shape[axis]),)
            start += part.shape[axis]
            made = Rearrangement("slice", lambda v, index=index: v[index], keeps_sign=True)
            found.append(self.add(node, made, tuple(part.shape), x))
        return found

    def padded(
        self, node: Any, x: Ref, pads: Sequence[int], mode: str = "constant", value: Any = None
    ) -> Ref:
        """pad, in any mode."""
        return self._padded(node, x, pads, mode, float(value or 0))

    def _padded(self, node: Any, x: Ref, pads: Sequence[int], mode: str, value: float) -> Ref:
        shape = (self.batch, *self.shape(x))
        if 2 * (len(shape) - 1) < len(pads):
            raise Unknown("aten.pad of the batch")
        settings = {"value": value} if mode == "constant" else {}

        def function(v: Tensor) -> Tensor:
            return functional.pad(v, list(pads), mode=mode, **settings)

        # The places themselves, padded in the same way, say how often each comes.
        places = torch.arange(1.0, math.prod(shape[1:]) + 1, dtype=torch.float64)
        went = functional.pad(places.view(1, *shape[1:]), list(pads), mode=mode).flatten().long()
        copies = int(torch.bincount(went)[1:].max())
        out = (
            self.batch,
            *functional.pad(torch.empty(shape[1:])[None], list(pads), mode=mode)[0].shape,
        )
        made = Rearrangement("pad", function, copies, keeps_sign=value >= 0)
        return self.add(node, made, out, x)

    def dropout(self, node: Any, x: Ref, share: float, train: bool) -> Ref:
        """dropout, which does nothing outside of training."""
        if train and share > 0:
            raise Unknown("dropout in training")
        return x

    def same(self, node: Any, x: Ref, *args: Any, **kwargs: Any) -> Ref:
        """Copies of the same values."""
        return x

    def cast(self, node: Any, x: Ref, *args: Any, **kwargs: Any) -> Ref:
        """to: between float32 and float64."""
        if node.meta["val"].dtype not in (torch.float32, torch.float64):
            raise Unknown(f"a cast to {node.meta['val'].dtype}")
        return x

    def softmax(self, node: Any, x: Ref, axis: int, *rest: Any) -> Ref:
        """softmax and log-softmax over the classes, which keep their order."""
        if axis % (1 + len(self.shape(x))) != 1 or len(self.shape(x)) != 1:
            raise Unknown(f"aten.{_name(node)} over other values than the classes")
        function = torch.softmax if _name(node) == "softmax" else torch.log_softmax
        return self.step(node, Ranking(_name(node), lambda v: function(v, 1)), x)


READERS: dict[str, Callable[..., Any]] = {
    "conv2d": Reader.convolution,
    "linear": Reader.dense,
    "addmm": Reader.addmm,
    "matmul": Reader.matmul,
    "mm": Reader.matmul,
    "batch_norm": Reader.batch_norm,
    "add": Reader.total,
    "sub": Reader.difference,
    "mul": Reader.product,
    "div": Reader.quotient,
    "neg": Reader.negative,
    "cat": Reader.concatenation,
    "zeros_like": Reader.zeros,
    "ones_like": Reader.ones,
    "max_pool2d": Reader.max_pool,
    "avg_pool2d": Reader.average_pool,
    "adaptive_avg_pool2d": Reader.adaptive_average,
    "adaptive_max_pool2d": Reader.adaptive_max,
    "mean": Reader.mean,
    "amax": Reader.amax,
    "flatten": Reader.moved,
    "view": Reader.moved,
    "reshape": Reader.moved,
    "_unsafe_view": Reader.moved,
    "squeeze": Reader.moved,
    "unsqueeze": Reader.moved,
    "permute": Reader.permuted,
    "transpose": Reader.transposed,
    "slice": Reader.sliced,
    "chunk": Reader.chunks,
    "split": Reader.chunks,
    "pad": Reader.padded,
    "dropout": Reader.dropout,
    "feature_dropout": Reader.dropout,
    "alpha_dropout": Reader.dropout,
    "clone": Reader.same,
    "contiguous": Reader.same,
    "alias": Reader.same,
    "detach": Reader.same,
    "lift_fresh_copy": Reader.same,
    "to": Reader.cast,
    "_to_copy": Reader.cast,
    "softmax": Reader.softmax,
    "log_softmax": Reader.softmax,
}
"""torch's name, without its overload -> what reads it."""


def place(node: Any) -> str:
    """Return the path of the module that a node belongs to, or its own name."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = stack[-1][0] if stack else ""
    return str(path) or str(node.name)


def _name(node: Any) -> str:
    if node.target is operator.getitem:
        return "getitem"
    return str(getattr(node.target, "_opname", None) or getattr(node.target, "__name__", node))


def _given(exported: Any) -> dict[str, Tensor]:
    """Return the parameters, buffers and constants that placeholders stand for."""
    signature = exported.graph_signature
    state = {**exported.state_dict, **exported.constants}
    names = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    return {name: state[target] for name, target in names.items()}


def _wide(value: Any) -> Any:
    """Return floating constants in float64."""
    if isinstance(value, Tensor):
        value = value.detach()
        return value.double() if value.is_floating_point() else value
    return [_wide(v) for v in value] if isinstance(value, list | tuple) else value


def _flat(values: Sequence[Any]) -> list[Any]:
    return [w for v in values for w in (_flat(v) if isinstance(v, list | tuple) else [v])]


def _only(node: Any, x: Any, *constants: Any) -> None:
    """Raise Unknown unless ``x`` alone depends on the images."""
    if not isinstance(x, Ref) or any(isinstance(c, Ref) for c in constants):
        raise Unknown(f"aten.{_name(node)} with parameters that depend on the images")


def _tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64)


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return (int(value[0]), int(value[-1]))


def _counts(size: int, k: int, s: int, p: int, outputs: int, *, padded: bool) -> Tensor:
    """Return ``(outputs,)``: the length of each window of an average along an axis."""
    starts = [s * i - p for i in range(outputs)]
    ends = [min(start + k, size + p) for start in starts]
    if not padded:
        starts, ends = [max(0, v) for v in starts], [min(size, v) for v in ends]
    return torch.tensor([e - b for b, e in zip(starts, ends, strict=True)], dtype=torch.float64)


def _chain(node: Any, names: Sequence[str]) -> list[Any] | None:
    """Return the nodes that lead to ``node`` by first arguments, if they have these names."""
    found = []
    for name in names:
        node = node.args[0] if node.args else None
        if not isinstance(node, torch.fx.Node) or _name(node) != name:
            return None
        found.append(node)
    return found
