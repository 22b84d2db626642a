"""A built model written down as ``model.py``: plain torch code that needs torch and nothing else.

The model is traced with ``torch.fx``: layers stay modules under their own names with the arguments
they were built with, so that ``model.safetensors`` fits and the model can be trained on. Where
tracing fails (a forward that branches on its tensors, functions of other libraries), the graph of
``torch.export`` is written instead, operation by operation: right in eval mode only.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from nas.export import standalone
from nas.export.writing import Unwritable, Writer, constructor, empty

PARTS: tuple[Callable[..., Any], ...] = (
    standalone.put,
    standalone.channels_last,
    standalone.contiguous_on_gpu,
    standalone.read_safetensors,
    standalone.filled,
    standalone.largest_difference,
)


TRAINABLE = """Layers are modules
under their names, so it can be trained on; what the original switched by its mode outside of layers
(drop path, say) is off."""
FIXED = """Written operation
by operation, as in eval mode: not made to be trained on."""


def write_source(model: nn.Module, title: str, program: Callable[[], ExportedProgram]) -> str:
    """Return the text of ``model.py``.

    Args:
        model: in ``eval()``, images ``(N, C, H, W)`` to logits.
        title: the first line of its docstring; one line.
        program: makes the exported program of the model, where tracing fails.

    Raises:
        Unwritable: neither way can be written with torch alone; the message says why.
    """
    try:
        return _text(_traced(model), title, whole=True)
    except Exception as error:  # noqa: BLE001  anybody's forward is run on proxies
        try:
            return _text(_exported(model, program()), title, whole=False)
        except Unwritable as second:
            raise Unwritable(f"{error}; {second}") from second


def _traced(model: nn.Module) -> Writer:
    writer = Writer(model)
    for node in fx.Tracer().trace(model).nodes:
        if node.op == "placeholder":
            if "images" in writer.names.values():
                raise Unwritable("a forward with several arguments")
            writer.names[node] = "images"
        elif node.op == "call_module":
            path = str(node.target)
            writer.layers[path] = constructor(model.get_submodule(path))
            writer.assign(node, writer.call(node, f"layer({path!r})"))
        elif node.op == "get_attr":
            path = str(node.target)
            value = operator.attrgetter(path)(_Attributes(model))
            writer.assign(node, writer.tensor(path, value))
        elif node.op == "call_function":
            writer.assign(node, writer.function(node))
        elif node.op == "call_method":
            subject, *args = node.args
            method = f"{writer.render(subject)}.{node.target}"
            writer.assign(node, writer.call(node, method, args))
        else:
            writer.lines.append(f"return {writer.render(node.args[0])}")
    return writer


class _Attributes:
    """A module's attributes by dotted path, of which parts may be digits."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._value, name)
        return _Attributes(found) if isinstance(found, nn.Module) else found


def _exported(model: nn.Module, program: ExportedProgram) -> Writer:
    writer, signature = Writer(model), program.graph_signature
    held = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    constants = signature.inputs_to_lifted_tensor_constants
    for node in program.graph.nodes:
        if node.op == "placeholder" and (node.name in held or node.name in constants):
            path = held.get(node.name) or constants[node.name]
            value = program.state_dict.get(path, program.constants.get(path))
            writer.assign(node, writer.tensor(path, value))
        elif node.op == "placeholder":
            writer.names[node] = "images"
        elif node.op == "call_function":
            if node.users:  # what nothing reads is a check of shapes
                writer.assign(node, writer.function(node))
        elif node.op == "output":
            writer.lines.append(f"return {writer.render(node.args[0][0])}")
        else:
            raise Unwritable(f"a graph with {node.op}")
    return writer


def _text(writer: Writer, title: str, *, whole: bool) -> str:
    """Return the file: docstring, model, and what reads and checks its weights."""
    state: Mapping[str, Tensor] = writer.model.state_dict()
    for path, value in state.items():  # of layers that are not called too: the weights must fit
        if not any(path == layer or path.startswith(f"{layer}.") for layer in writer.layers):
            writer.layers[path] = empty(writer.model, path, value)
    trained = TRAINABLE if whole else FIXED
    layers = "\n".join(f"        put(self, {p!r}, {c})" for p, c in writer.layers.items())
    forward = "\n".join(f"        {line}" for line in writer.lines)
    parts = "\n\n".join(inspect.getsource(part) for part in PARTS)
    return f'''"""{title}

Images (N, C, H, W), float32 in [0, 1], to logits; the normalisation is inside. Needs torch alone:

    from model import load
    model = load()

`python model.py` holds it against stored logits. {trained}
"""

from __future__ import annotations

import json
import math
import operator
import struct
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


class Model(nn.Module):
    """The network, layer by layer; weights come from `load`."""

    def __init__(self) -> None:
        super().__init__()
{layers}
        channels_last(self)

    def forward(self, images: Tensor) -> Tensor:
        layer, get = self.get_submodule, self.state
{forward}

    def state(self, path: str) -> Tensor:
        """Return a parameter or buffer by its dotted name."""
        place, _, name = path.rpartition(".")
        return getattr(self.get_submodule(place), name)


{parts}

def load(directory: str | Path | None = None) -> nn.Module:
    """Return the model with its weights, in eval mode; from beside this file by default."""
    return filled(Model(), Path(__file__).parent if directory is None else directory)


if __name__ == "__main__":
    difference, most = largest_difference(load(), Path(__file__).parent)
    right = difference <= most
    print(f"largest difference of a logit: {{difference:.3g}}", "(right)" if right else "(WRONG)")
    raise SystemExit(0 if right else 1)
'''
