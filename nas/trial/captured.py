"""A minibatch recorded once as a CUDA graph and then replayed: attack, loss and backward pass.

The host launches hundreds of kernels for a step of PGD-7 on a small net, and a GPU ends each before
the next is there. Replayed, a step is one launch. So it pays for nets whose kernels are shorter
than their launches (5 to 10 µs each): small batches of few channels, cells of many small
operations; nothing is to be had on a ResNet-18 with batches of 128, whose kernels are longer. It
costs the memory of a second step. It is off unless ``PSINAS_CAPTURE=1`` says otherwise: **it has
never run on a card**. Its numbers are those of eager steps up to what replays differ by, and no
part of a trial.

What is recorded must be the same in every step: no Python that decides by chance or by numbers on
the GPU, no other shapes. Batches of another size (the last of an epoch) run eagerly. Before the
first replay counts, it is compared with an eager step (:meth:`Captured.check`); where it differs,
or where nothing can be recorded, training goes on eagerly and says why. See
https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from nas.errors import one_line
from nas.trial.recipe import Recipe

VARIABLE = "PSINAS_CAPTURE"
WARM_UP = 3  # eager steps before recording: libraries choose algorithms and allocate
TOLERANCE = 1e-2  # of the norm of gradients: signs of an attack's gradient amplify rounding
ELSEWHERE = 1.1  # what weights are multiplied by for the check

Compute = Callable[[Tensor, Tensor], Tensor]
"""Takes images and labels of a minibatch, sets every ``.grad`` anew, returns the loss detached."""


def capture_asked() -> bool:
    """Whether the environment asks for replayed steps."""
    return os.environ.get(VARIABLE) == "1"


class Graph(Protocol):
    """What records and replays; a test has one without a GPU."""

    def warm(self, work: Callable[[], Tensor]) -> Tensor:
        """Return what ``work`` does, run as it will be recorded."""

    def capture(self, work: Callable[[], Tensor]) -> Tensor:
        """Record ``work``; return the tensor that every replay writes its result to."""

    def replay(self) -> None:
        """Do what was recorded, with what is now in the tensors that it reads."""


class CudaGraph:
    """torch's, on a stream of its own; each record is another graph of torch's.

    Args:
        generator: draws in what is recorded, beside the device's own.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator
        self._stream = torch.cuda.Stream(generator.device)
        self._graph: torch.cuda.CUDAGraph | None = None

    def warm(self, work: Callable[[], Tensor]) -> Tensor:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            done = work()
        torch.cuda.current_stream().wait_stream(self._stream)
        return done

    def capture(self, work: Callable[[], Tensor]) -> Tensor:
        self._graph = None  # its memory first
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        with (
            torch.cuda.stream(self._stream),  # left also where the end of a capture raises
            torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"),
        ):
            done = work()
        self._graph = graph
        return done

    def replay(self) -> None:
        assert self._graph is not None
        self._graph.replay()


def captured(
    compute: Compute,
    model: nn.Module,
    generator: torch.Generator,
    micro_batch: int | None,
    recipe: Recipe,
) -> Captured:
    """Return ``compute`` to be recorded on the device of ``generator``, refused where it cannot be.

    Args:
        compute: draws from ``generator`` and the device's own.
        model: on that device.
        generator: decides what a step draws.
        micro_batch: images at a time; parts of a batch are not recorded.
        recipe: what carries something from batch to batch is not recorded.
    """
    reasons = {
        f"no CUDA graphs on {generator.device.type}": generator.device.type != "cuda",
        "trains on micro-batches": micro_batch is not None,
        "attacks begin where others ended": recipe.carry_perturbations,
        "adds the gradients of several batches": recipe.accumulate > 1,
    }
    if why := next((reason for reason, holds in reasons.items() if holds), ""):
        return Captured(compute, model, (), why)
    own = torch.cuda.default_generators[generator.device.index]
    try:
        graph = CudaGraph(generator)
    except (RuntimeError, AssertionError) as error:  # a torch that has no streams
        return Captured(compute, model, (), one_line(error))
    return Captured(compute, model, (generator, own), graph)


class Captured:
    """A :data:`Compute` that records the one it is given, and replays it.

    Args:
        compute: runs eagerly until there is a record, and where there is none.
        model: whose gradients it sets. Batch norm's statistics may change in a step, weights not.
        generators: all that a step draws from; a replay leaves them as an eager step would.
        graph: records; text says why nothing can.
    """

    def __init__(
        self,
        compute: Compute,
        model: nn.Module,
        generators: tuple[torch.Generator, ...],
        graph: Graph | str,
    ) -> None:
        self._compute, self._model, self._generators = compute, model, generators
        self._graph = None if isinstance(graph, str) else graph
        self._refused = graph if isinstance(graph, str) else ""
        self._steps = 0
        self._recorded: _Recorded | None = None
        self._shape: torch.Size | None = None
        self._kind: object = None

    @property
    def status(self) -> str:
        """``on``, ``refused (why)``, or ``off``: too few steps for a record."""
        if self._refused:
            return f"refused ({self._refused})"
        return "off" if self._recorded is None else "on"

    def begin_epoch(self, kind: object) -> None:
        """Record anew where ``kind`` is another than in the epoch before.

        That is all that steps depend on beside images, weights and draws, such as the number of an
        attack's steps.
        """
        if kind != self._kind:
            self._kind, self._steps, self._recorded = kind, 0, None

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Do what ``compute`` does."""
        if self._shape is None:
            self._shape = x.shape
        if self._graph is None or x.shape != self._shape:
            return self._compute(x, y)
        self._steps += 1
        if self._steps <= WARM_UP:
            return self._graph.warm(lambda: self._compute(x, y))
        if self._recorded is None or self._recorded.places != self._places():
            self._record(self._graph, x, y)
        return self._compute(x, y) if self._recorded is None else self._replayed(x, y)

    def check(self, x: Tensor, y: Tensor) -> str:
        """Return how a replay differs from an eager step; nothing where it does not.

        Both start from one state, at weights 10 % off those that were recorded, so that a record
        that holds copies of them is found out, and on images that it was not recorded with. The
        generators have to end in one state; loss, batch norm's statistics and all gradients may
        differ by :data:`TOLERANCE` of their norm. Everything is left as it was.
        """
        before = self._state()
        results: list[_Result] = []
        for compute in (self._compute, self._replayed):
            with torch.no_grad():
                for parameter in self._model.parameters():
                    parameter.mul_(ELSEWHERE)
            loss = compute(x, y)
            after = self._state()
            gradients = [p.grad.clone() for p in self._model.parameters() if p.grad is not None]
            results.append(_Result(loss.clone(), gradients, after))
            self._restore(before)
        eager, replayed = results
        if not all(map(torch.equal, eager.state.draws, replayed.state.draws)):
            return "a replay draws other random numbers"
        for name, a, b in (
            ("loss", [eager.loss], [replayed.loss]),
            ("gradient", eager.gradients, replayed.gradients),
            ("buffers", eager.state.buffers, replayed.state.buffers),
        ):
            off = _difference(a, b)
            if not off <= TOLERANCE:
                return f"a replay's {name} is off by {off:.2g}, expected up to {TOLERANCE:g}"
        return ""

    def _record(self, graph: Graph, x: Tensor, y: Tensor) -> None:
        before = self._state()
        images, labels = torch.zeros_like(x), torch.zeros_like(y)
        try:
            self._model.zero_grad(set_to_none=True)  # gradients get memory that replays write to
            loss = graph.capture(lambda: self._compute(images, labels))
            gradients = [p.grad for p in self._model.parameters()]
            self._recorded = _Recorded(graph, images, labels, loss, gradients, self._places())
            self._restore(before)
            self._refused = self.check(x, y)
        except Exception as error:  # noqa: BLE001  told; on a device that failed what follows fails
            self._refused = one_line(_first(error))
            self._restore(before)
        if self._refused:
            self._graph = self._recorded = None

    def _replayed(self, x: Tensor, y: Tensor) -> Tensor:
        recorded = self._recorded
        assert recorded is not None
        recorded.images.copy_(x)
        recorded.labels.copy_(y)
        recorded.graph.replay()
        for parameter, gradient in zip(self._model.parameters(), recorded.gradients, strict=True):
            parameter.grad = gradient
        return recorded.loss.clone()

    def _places(self) -> list[int]:
        """Return where a replay finds the weights, which somebody may have put elsewhere since."""
        return [t.data_ptr() for t in (*self._model.parameters(), *self._model.buffers())]

    def _state(self) -> _State:
        parameters = [p.detach().clone() for p in self._model.parameters()]
        buffers = [b.detach().clone() for b in self._model.buffers()]
        return _State(parameters, buffers, [g.get_state() for g in self._generators])

    def _restore(self, state: _State) -> None:
        tensors = (*self._model.parameters(), *self._model.buffers())
        with torch.no_grad():
            for now, then in zip(tensors, (*state.parameters, *state.buffers), strict=True):
                now.copy_(then)
        for generator, draws in zip(self._generators, state.draws, strict=True):
            generator.set_state(draws)


@dataclass(frozen=True)
class _Recorded:
    """What replays, the tensors that it reads and writes, and the addresses of weights."""

    graph: Graph
    images: Tensor
    labels: Tensor
    loss: Tensor
    gradients: list[Tensor | None]
    places: list[int]


@dataclass(frozen=True)
class _State:
    parameters: list[Tensor]
    buffers: list[Tensor]
    draws: list[Tensor]


@dataclass(frozen=True)
class _Result:
    loss: Tensor
    gradients: list[Tensor]
    state: _State


def _difference(a: list[Tensor], b: list[Tensor]) -> float:
    """Return the norm of ``b - a`` over that of ``a``; infinity where the shapes differ."""
    if [v.shape for v in a] != [v.shape for v in b]:
        return math.inf
    if not a:
        return 0.0
    off = torch.stack([(v.double() - w.double()).norm() for v, w in zip(a, b, strict=True)]).norm()
    size = torch.stack([v.double().norm() for v in a]).norm()
    return float(off / size.clamp_min(1e-300))


def _first(error: BaseException) -> BaseException:
    """Return the error during which the others were raised: the end of a capture raises, too."""
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    return error
