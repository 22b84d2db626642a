"""Nodes of a traced model as lines of Python: names, calls, literals, constructors of layers."""

from __future__ import annotations

import inspect
import math
import operator
import re
from dataclasses import dataclass, field
from keyword import iskeyword
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from search_spaces.pooling import contiguous_on_gpu

INFIX = {
    operator.add: "+",
    operator.iadd: "+",
    operator.sub: "-",
    operator.mul: "*",
    operator.imul: "*",
    operator.truediv: "/",
    operator.floordiv: "//",
    operator.matmul: "@",
}
LARGEST_CONSTANT = 4096  # numbers of a tensor that is written out
RESERVED = {"torch", "nn", "functional", "math", "operator", "layer", "get", "self", "images", "x"}


class Unwritable(Exception):
    """A model that cannot be written as torch code."""


@dataclass
class Writer:
    """What has been written of one model.

    Attributes:
        model: it.
        layers: dotted name -> the constructor of what lies there.
        lines: of ``forward``.
        names: node -> the variable that holds its value.
    """

    model: nn.Module
    layers: dict[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    names: dict[fx.Node, str] = field(default_factory=dict)

    def assign(self, node: fx.Node, expression: str) -> None:
        """Write ``name = expression``, in the variable of an argument that is used up by it."""
        ends = [a for a in node.all_input_nodes if _last_user(a) is node and a in self.names]
        held = {self.names[n] for n in self.names if n not in ends and _read_later(n, node)}
        free = next((self.names[a] for a in ends if self.names[a] not in held | {"images"}), None)
        self.names[node] = free or self._new_name(node, held)
        self.lines.append(f"{self.names[node]} = {expression}")

    def _new_name(self, node: fx.Node, held: set[str]) -> str:
        if "x" not in held:
            return "x"
        name = re.sub(r"^(1_)+", "", node.name.lstrip("_"))
        wrong = not name.isidentifier() or iskeyword(name) or name in RESERVED
        name = f"v_{name}" if wrong else name
        while name in held:
            name += "_"
        return name

    def tensor(self, path: str, value: Tensor) -> str:
        """Return the expression of a parameter or buffer; a constant that has no name is put."""
        if path in self.model.state_dict():
            self.layers.setdefault(path, empty(self.model, path, value))
            return f"get({path!r})"
        if value.numel() > LARGEST_CONSTANT:
            raise Unwritable(f"a constant of {value.numel()} numbers that is no weight")
        return f"torch.tensor({value.tolist()!r}, dtype={value.dtype}, device=images.device)"

    def call(self, node: fx.Node, function: str, args: Any = None, kwargs: Any = None) -> str:
        given = [self.render(a) for a in (node.args if args is None else args)]
        pairs = node.kwargs if kwargs is None else kwargs
        given += [f"{key}={self.render(value)}" for key, value in pairs.items()]
        return f"{function}({', '.join(given)})"

    def function(self, node: fx.Node) -> str:
        """Return the expression of a call of a function.

        Raises:
            Unwritable: a function of another library.
        """
        target: Any = node.target
        if target in INFIX and len(node.args) == 2:
            left, right = (self.render(a) for a in node.args)
            return f"{left} {INFIX[target]} {right}"
        if target is operator.getitem:
            return f"{self.render(node.args[0])}[{self.index(node.args[1])}]"
        return self.call(node, _name_of(target))

    def index(self, value: Any) -> str:
        if isinstance(value, tuple) and value:
            return ", ".join(self.index(v) for v in value) + ("," if len(value) == 1 else "")
        if isinstance(value, slice):
            ends = ["" if e is None else self.render(e) for e in (value.start, value.stop)]
            return ":".join(ends + ([] if value.step is None else [self.render(value.step)]))
        return self.render(value)

    def render(self, value: Any) -> str:
        """Return an argument as Python.

        Raises:
            Unwritable: a value that has no literal.
        """
        if isinstance(value, fx.Node):
            return self.names[value]
        if isinstance(value, tuple | list):
            inside = ", ".join(self.render(v) for v in value)
            if isinstance(value, list):
                return f"[{inside}]"
            return f"({inside},)" if len(value) == 1 else f"({inside})"
        if isinstance(value, dict):
            return "{" + ", ".join(f"{k!r}: {self.render(v)}" for k, v in value.items()) + "}"
        if isinstance(value, slice):
            return (
                f"slice({', '.join(self.render(v) for v in (value.start, value.stop, value.step))})"
            )
        if isinstance(value, float) and not math.isfinite(value):
            return f"float({str(value)!r})"
        if value is None or isinstance(value, bool | int | float | str) or value is Ellipsis:
            return "..." if value is Ellipsis else repr(value)
        if isinstance(value, torch.dtype | torch.memory_format | torch.layout):
            return str(value)
        if isinstance(value, torch.device):
            return "images.device"
        raise Unwritable(f"an argument of type {type(value).__name__}")


def _last_user(node: fx.Node) -> fx.Node | None:
    return max(node.users, default=None)


def _read_later(node: fx.Node, now: fx.Node) -> bool:
    return any(now < user for user in node.users)


def _name_of(target: Any) -> str:
    """Return how torch alone calls a function.

    Raises:
        Unwritable: it is not torch's.
    """
    if target is contiguous_on_gpu:
        return "contiguous_on_gpu"
    if isinstance(target, torch._ops.OpOverload):
        if target.namespace not in ("aten", "prims", "prim"):
            raise Unwritable(f"the operation {target}, which torch alone has not")
        return f"torch.ops.{target}"
    name = getattr(target, "__name__", "")
    places = {"torch": torch, "functional": functional, "operator": operator, "math": math}
    for place, module in places.items():
        if getattr(module, name, None) is target:
            return f"{place}.{name}"
    if target is getattr:
        return "getattr"
    raise Unwritable(f"the function {getattr(target, '__module__', '?')}.{name}, not of torch")


def constructor(module: nn.Module) -> str:
    """Return the call that builds a layer of torch again, without its weights.

    Raises:
        Unwritable: arguments that the layer does not keep.
    """
    kind = type(module)
    if getattr(nn, kind.__name__, None) is not kind:
        raise Unwritable(f"the layer {kind.__module__}.{kind.__name__}, not of torch.nn")
    writer, given = Writer(module), []
    for name, parameter in inspect.signature(kind.__init__).parameters.items():
        if name in ("self", "device", "dtype"):
            continue
        value = _argument(module, name)
        positional = parameter.default is inspect.Parameter.empty
        if positional or value != parameter.default:
            text = writer.render(value)
            given.append(text if positional else f"{name}={text}")
    return f"nn.{kind.__name__}({', '.join(given)})"


def _argument(module: nn.Module, name: str) -> Any:
    """Return what a layer was given for a parameter of its constructor."""
    if isinstance(module, nn.MultiheadAttention):
        special = {"bias": module.in_proj_bias, "add_bias_kv": module.bias_k}
        if name in special:
            return special[name] is not None
    if name == "bias":
        return getattr(module, name, None) is not None
    if not hasattr(module, name) or isinstance(getattr(module, name), Tensor):
        raise Unwritable(f"the layer {type(module).__name__}, which does not keep its {name}")
    return getattr(module, name)


def empty(model: nn.Module, path: str, value: Tensor) -> str:
    empty = f"torch.zeros({tuple(value.shape)!r}, dtype={value.dtype})"
    return f"nn.Parameter({empty})" if path in dict(model.named_parameters()) else empty
