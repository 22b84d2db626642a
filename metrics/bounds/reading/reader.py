"""Goes through an exported model and makes a step of every operation that the logits follow from.

What each of torch's operations is, the functions of :data:`metrics.bounds.reading.table.READERS`
say: each takes a reader, a node and its arguments, and answers with the step that it added.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metrics.bounds.operations import Constant, Operation, Rearrangement, Unknown


@dataclass(frozen=True)
class Ref:
    """A tensor that depends on the images: the number of its entry."""

    entry: int


@dataclass
class Entry:
    """A step in the making.

    Attributes:
        node: of the exported model.
        operation: None for the images themselves.
        sources: the entries that it reads.
        shape: of its output, without the batch.
        nonnegative: whether its outputs are.
    """

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
        readers: torch's name of an operation, without its overload -> what reads it.

    Attributes:
        entries: what was read so far; the first is the images.
    """

    def __init__(
        self, exported: Any, batch: int, readers: Mapping[str, Callable[..., Any]]
    ) -> None:
        self.batch, self.readers = batch, readers
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
                self._values[node] = wide(self._given[node.name])
            else:
                shape = tuple(node.meta["val"].shape[1:])
                self.entries.append(Entry(node, None, (), shape, False))
                self._values[node] = Ref(0)
        elif node.op == "output":
            value = self._values.get(node.args[0][0])
            if isinstance(value, Unknown):
                raise value
            if not isinstance(value, Ref):
                raise Unknown("logits that do not depend on the images")
            self._output = value.entry
        else:
            try:
                self._values[node] = self._called(node)
            except Unknown as unknown:  # of no concern where the logits do not follow from it
                if unknown.args == (str(unknown),):
                    unknown = Unknown(f"{unknown} ({place(node)})", "placed")
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

    def value_of(self, argument: Any) -> Any:
        """Return what stands for an argument of a node: a constant, a Ref, or a list of them."""
        if isinstance(argument, torch.fx.Node):
            return self._values[argument]
        if isinstance(argument, list | tuple):
            return [self.value_of(a) for a in argument]
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
            raise Unknown(f"{called(node)} over the images of a batch")
        sign = operation.nonnegative or (
            operation.keeps_sign and all(self.entries[s.entry].nonnegative for s in sources)
        )
        sources_of = tuple(s.entry for s in sources)
        self.entries.append(Entry(node, operation, sources_of, tuple(shape[1:]), sign))
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
            raise Unknown(f"{called(node)} of {own} and {tuple(shape)}")
        inner = tuple(shape[1:])
        copies = math.prod(inner) // max(1, math.prod(own[1:]))
        grown = Rearrangement("expand", lambda x: x.expand(len(x), *inner), copies)
        return self.add(node, grown, shape, ref)

    def constant(self, node: Any, value: Tensor) -> Ref:
        """Add a step that is ``value`` ``(...)`` for every image."""
        return self.add(node, Constant(value), (self.batch, *value.shape))

    def _called(self, node: Any) -> Any:
        name = name_of(node)
        args = [self.value_of(a) for a in node.args]
        kwargs = {key: self.value_of(value) for key, value in node.kwargs.items()}
        if name == "getitem" and isinstance(args[0], list):
            if args[1] >= len(args[0]):
                raise Unknown("the places of a maximum")
            return args[0][args[1]]
        if name == "pow" and (ends := self.readers["lp_pool2d"](self, node)) is not None:
            return ends
        every = _flat([*args, *kwargs.values()])
        for value in every:
            if isinstance(value, Unknown):
                raise value
        if not any(isinstance(v, Ref) for v in every):
            return wide(node.target(*args, **kwargs))
        reader = self.readers.get(name.rstrip("_") or name)
        if reader is None:
            raise Unknown(called(node))
        writes = name.endswith("_") and isinstance(args[0], Ref) and "dropout" not in name
        if writes and isinstance(self.entries[args[0].entry].operation, Rearrangement):
            raise Unknown(f"{called(node)} on a view")
        result = reader(self, node, *args, **kwargs)
        if writes:  # whoever reads it from now on reads what was written
            for key, value in list(self._values.items()):
                if value == args[0]:
                    self._values[key] = result
        return result


def only(node: Any, x: Any, *constants: Any) -> None:
    """Raise Unknown unless ``x`` depends on the images, and nothing else."""
    if not isinstance(x, Ref) or any(isinstance(c, Ref) for c in constants):
        raise Unknown(f"{called(node)} with parameters that depend on the images")


def wide(value: Any) -> Any:
    """Return floating constants in float64."""
    if isinstance(value, Tensor):
        value = value.detach()
        return value.double() if value.is_floating_point() else value
    return [wide(v) for v in value] if isinstance(value, list | tuple) else value


def place(node: Any) -> str:
    """Return the path of the module that a node belongs to, or its own name."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = stack[-1][0] if stack else ""
    return str(path) or str(node.name)


def name_of(node: Any) -> str:
    """Return torch's name of the operation, without its overload."""
    if node.target is operator.getitem:
        return "getitem"
    return str(getattr(node.target, "_opname", None) or getattr(node.target, "__name__", node))


def called(node: Any) -> str:
    """Return torch's whole name of the operation."""
    return f"aten.{name_of(node)}"


def pair(value: Any) -> tuple[int, int]:
    """Return a setting of a window along height and width."""
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[-1]))


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


def _flat(values: Sequence[Any]) -> list[Any]:
    return [w for v in values for w in (_flat(v) if isinstance(v, list | tuple) else [v])]
