"""How a small change of the input grows from layer to layer: the drift of hidden states.

The drift of state l is |h_l(x + δ) - h_l(x)|, in RMS. The Ψ paper takes its growth for that of a
chaotic map, drift ~ |δ| e^{λ l}, and gives λ from the output alone: ln(drift of the output / |δ|)
over the number of layers. The averaging head shrinks every drift, so that λ is smaller than the
slope of ln drift over the layers before it: both are here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from metrics.answers import outputs_of
from metrics.checks import check_batch_size, check_inputs, check_model, scripted
from metrics.precision import full_float32, rounding
from metrics.showing import brief
from metrics.susceptibility.means import geometric_mean
from metrics.susceptibility.normalisation import check_batch_norm, normalising
from metrics.susceptibility.ratio import ROUNDING
from metrics.susceptibility.sphere import rms

INPUT, OUTPUT = "input", "output"
PARAMETRISED = ".parametrizations."  # in the names of modules that compute a weight, not a state


@dataclass(frozen=True)
class Drift:
    """The drift of every hidden state.

    Attributes:
        states: names, from ``input`` to ``output``.
        layers: how many layers lie before each; 0 for the input.
        distance: ``(states, N)`` float64, RMS.
        cancelled: distances under 100 rounding errors of their state: float64 tells.
    """

    states: tuple[str, ...]
    layers: tuple[int, ...]
    distance: Tensor
    cancelled: int

    __repr__ = brief

    @property
    def growth(self) -> tuple[float, ...]:
        """Each state's drift over the input's, the geometric mean over inputs."""
        return tuple(geometric_mean(self.distance / self.distance[0]).tolist())

    @property
    def lyapunov(self) -> float:
        """λ as the paper has it: ln(growth of the output) over the number of layers."""
        return math.log(self.growth[-1]) / self.layers[-1]

    @property
    def slope(self) -> float:
        """The least-squares slope of ln drift per layer, from the input to the last hidden state.

        The output is left out: its head averages, and shrinks the drift.
        """
        if len(self.states) < 3:
            return self.lyapunov
        return float(np.polyfit(self.layers[:-1], np.log(self.growth[:-1]), 1)[0])


def drift(
    model: nn.Module,
    images: Tensor,
    moved: Tensor,
    *,
    states: Mapping[str, int] | None = None,
    batch_norm: str = "eval",
    batch_size: int = 100,
) -> Drift:
    """Return how far the hidden states of ``moved`` are from those of ``images``.

    Args:
        model: left as found.
        images: ``(N, C, H, W)``.
        moved: the same with a small change, of :func:`sphere_attack` or any other.
        states: submodule (as in ``named_modules``; ``""`` is the model) -> layers up to its output,
            in order. None takes the model's own ``hidden_states``, else every module with a weight
            matrix or kernel that returns a tensor, in the order of their calls, one layer each.
        batch_norm: see :func:`susceptibility`; ``frozen`` takes the statistics of ``images``.
        batch_size: images at a time.

    Raises:
        ValueError: images of different shapes, no images, an unknown submodule, a state that is no
            tensor ``(N, ...)`` or never came, or a TorchScript model, whose states are out of
            reach.
    """
    check_model(model)
    for some in (images, moved):
        check_inputs(some)
    batch_size = check_batch_size(batch_size)
    if images.shape != moved.shape:
        raise ValueError(
            "expected as many images before and after, got "
            f"{tuple(images.shape)} and {tuple(moved.shape)}"
        )
    if scripted(model):
        raise ValueError(
            "model: expected modules whose outputs can be seen, got TorchScript, which takes no "
            "hooks; pass the module that it was made of"
        )
    check_batch_norm(batch_norm)
    if batch_norm == "batch":
        batch_size = len(images)
    distances, cancelled = [], 0
    with (
        full_float32(),
        torch.inference_mode(False),
        torch.no_grad(),
        normalising(model, images, batch_norm),
    ):
        if states is None:
            states = getattr(model, "hidden_states", None) or _weighted(model, images[:2])
        if not isinstance(states, Mapping):
            raise ValueError(f"states: expected a mapping of names to layers, got {states!r}")
        layers = dict(states)
        for x, y in zip(images.split(batch_size), moved.split(batch_size), strict=True):
            before, after = (_record(model, some, layers) for some in (x, y))
            rows = []
            for a, b in zip(before, after, strict=True):
                change = rms(b.double() - a.double()).flatten()
                size = rounding(model, a) * rms(a.double()).flatten()
                cancelled += int((change < ROUNDING * size).sum())
                rows.append(change)
            distances.append(torch.stack(rows))
    names = [_short(name) for name in layers]
    return Drift(
        (INPUT, *names), (0, *layers.values()), torch.cat(distances, dim=1).cpu(), cancelled
    )


def lyapunov_exponent(first: float, last: float, steps: int) -> float:
    """Return λ of a drift that grew from ``first`` to ``last`` in ``steps``: ln(last/first)/steps.

    Raises:
        ValueError: a drift that is not positive, or steps below 1.
    """
    if not (first > 0 and last > 0 and steps >= 1):
        raise ValueError(f"expected positive drifts and steps >= 1, got {first}, {last}, {steps}")
    return math.log(last / first) / steps


def _short(name: str) -> str:
    """Return a submodule's name without the numbers before it: ``1.layer1`` is ``layer1``."""
    path = name.split(".")
    while len(path) > 1 and path[0].isdigit():
        path = path[1:]
    return ".".join(path) or OUTPUT


def _record(model: nn.Module, x: Tensor, states: Mapping[str, int]) -> list[Tensor]:
    """Return the input and every state, each as it was when its module returned."""
    seen: dict[str, Tensor] = {}
    with _watching(model, states, seen, len(x)):
        outputs_of(model, x)
    if missing := [name for name in states if name not in seen]:
        raise ValueError(f"states: expected modules that are called, got {missing}, which are not")
    return [x, *(seen[name] for name in states)]


@contextmanager
def _watching(
    model: nn.Module,
    states: Mapping[str, int],
    seen: dict[str, Tensor],
    count: int,
    *,
    skip: bool = False,
) -> Iterator[None]:
    """Note what the modules return; a module that is called again is noted again.

    ``skip`` leaves out those that return something else than a tensor ``(count, ...)``.
    """
    modules = dict(model.named_modules())
    if unknown := [name for name in states if name not in modules]:
        raise ValueError(
            f"states: expected submodules ({', '.join(filter(None, modules))}), got {unknown}"
        )

    def note(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim and len(output) == count:
                seen[name] = output.clone()  # what comes next may write over it
            elif not skip:
                got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
                raise ValueError(
                    f"state {name or 'output'!r}: expected a tensor ({count}, ...), got {got}"
                )

        return hook

    handles = [modules[name].register_forward_hook(note(name)) for name in states]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _weighted(model: nn.Module, x: Tensor) -> dict[str, int]:
    """Return every module with a weight of two or more axes, in the order of their first calls."""
    names = [
        name
        for name, module in model.named_modules()
        if name and PARAMETRISED not in name and any(w.ndim >= 2 for w in _weights(module))
    ]
    seen: dict[str, Tensor] = {}
    with _watching(model, dict.fromkeys(names, 0), seen, len(x), skip=True):
        outputs_of(model, x)
    order = list(seen)
    return {**{name: i + 1 for i, name in enumerate(order[:-1])}, "": max(1, len(order))}


def _weights(module: nn.Module) -> Iterator[Tensor]:
    """Yield the parameters of a module's own, those that a parametrisation computes included."""
    yield from module.parameters(recurse=False)
    if is_parametrized(module):
        yield from (getattr(module, name) for name in module.parametrizations)  # type: ignore[union-attr]
