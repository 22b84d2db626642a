"""A model read into a list of operations that are known, and whose gain is.

The model is exported with ``torch.export`` for images of one shape. An operation that
:mod:`metrics.bounds.reading` does not know is refused by name. What was read is then run beside
the model: a program that answers otherwise is refused too, so that no bound is one of another
function.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from metrics.answers import logits_of
from metrics.bounds.operations import Operation, Unknown
from metrics.bounds.reading.reader import Reader, place
from metrics.bounds.reading.table import READERS

AGREEMENT = 1e-4  # of the program in float64 and the model, over the largest logit
EXPORTED = 3  # images that the model is exported with: a number that few shapes contain


@dataclass(frozen=True, eq=False)
class Step:
    """One operation of a model.

    Attributes:
        name: of the module that it belongs to, with a number where it has several.
        operation: None for the images themselves.
        sources: which steps it reads.
        shape: of its output, without the batch.
    """

    name: str
    operation: Operation | None
    sources: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many values its output has."""
        return torch.Size(self.shape).numel()


@dataclass(frozen=True, eq=False)
class Program:
    """The operations of a model in their order; the first step is the images, the last the logits.

    Attributes:
        steps: each reads earlier ones.
    """

    steps: tuple[Step, ...]

    def evaluate(self, images: Tensor, wanted: Iterable[int], start: int = 0) -> dict[int, Tensor]:
        """Return the outputs ``(N, ...)`` of the ``wanted`` steps, in the type of ``images``.

        Args:
            images: ``(N, C, H, W)``, or the output of step ``start``, which nothing behind it
                that is needed goes around.
            wanted: numbers of steps.
            start: where to begin.
        """
        asked = set(wanted)
        needed = self.behind(asked, start)
        last = {j: i for i in sorted(needed) for j in self.steps[i].sources}
        values = {start: images}
        found = {start: images} if start in asked else {}
        for i in sorted(needed - {start}):
            step = self.steps[i]
            assert step.operation is not None
            inputs = [values[j] for j in step.sources] or [images]
            values[i] = step.operation.forward(*inputs)
            if i in asked:
                found[i] = values[i]
            for j in step.sources:
                if last[j] == i:
                    values.pop(j, None)
        return found

    def behind(self, steps: Iterable[int], start: int = 0) -> set[int]:
        """Return ``steps`` and every step from ``start`` on that they follow from."""
        needed: set[int] = set()
        left = list(steps)
        while left:
            i = left.pop()
            if i not in needed:
                needed.add(i)
                left += self.steps[i].sources if i > start else ()
        return needed

    def users(self) -> list[list[int]]:
        """Return which steps read each step."""
        found: list[list[int]] = [[] for _ in self.steps]
        for i, step in enumerate(self.steps):
            for j in step.sources:
                found[j].append(i)
        return found

    def cuts(self) -> list[int]:
        """Return the steps that every way from the images to the logits goes through, ascending."""
        users, found = self.users(), []
        reach = 0  # the last step that reads an earlier one of those on a way from the images
        moving = {0}
        for i, step in enumerate(self.steps):
            if i and not moving & set(step.sources):
                continue
            moving.add(i)
            if reach <= i:
                found.append(i)
            reach = max([reach, *users[i]])
        return found


def read(model: nn.Module, images: Tensor) -> Program:
    """Return the program of ``model`` for images like ``images`` ``(N, C, H, W)``.

    Args:
        model: in ``eval()``, with parameters in float32 or float64.
        images: two are run to compare the program with the model.

    Raises:
        ValueError: an operation whose gain is not known, by its name and its module's; a model that
            cannot be exported, mixes the images of a batch, or answers otherwise than its program.
    """
    kinds = {p.dtype for p in model.parameters() if p.is_floating_point()}
    if not kinds <= {torch.float32, torch.float64}:
        raise ValueError(
            f"bounds: expected parameters in float32 or float64, got {sorted(map(str, kinds))}"
        )
    if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
        raise ValueError("bounds: expected a model without forward hooks, got one with some")
    exported = _exported(model, images)
    program = _program(exported)
    with torch.no_grad():
        some = images[:2].detach()
        logits = logits_of(model, some).double()
        last = len(program.steps) - 1
        got = program.evaluate(some.double(), [last])[last]
    apart = (got - logits).abs().max() if got.shape == logits.shape else torch.inf
    if not apart <= AGREEMENT * logits.abs().max():
        raise ValueError(
            "bounds: expected the operations read off the model to give its logits, got others, "
            f"{float(apart):.2g} apart"
        )
    return program


def _exported(model: nn.Module, images: Tensor) -> Any:
    """Return the exported model; what it prints and warns is left out."""
    some = images[:1].detach().cpu().expand(EXPORTED, *images.shape[1:]).clone()
    with _quiet(), _precision_left_alone(), torch.no_grad():
        try:
            return torch.export.export(copy.deepcopy(model).cpu(), (some,), strict=False)
        except Exception as error:
            first = str(error).strip().partition("\n")[0]
            raise ValueError(
                f"bounds: expected a model that torch.export can read, got one that raises "
                f"{type(error).__name__}: {first[:200]}"
            ) from error


@contextmanager
def _precision_left_alone() -> Iterator[None]:
    """Keep torch's exporter from switching cuDNN off and on again: it traces on the CPU.

    It reads and writes the flag for TF32 by a name that the settings outgrew: that raises where
    they were set in full (:func:`metrics.precision.full_float32`), and leaves others behind.
    """
    cudnn: Any = torch.backends.cudnn
    before = cudnn.set_flags
    cudnn.set_flags = lambda *flags, **named: ()
    try:
        yield
    finally:
        cudnn.set_flags = before


@contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("torch")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _program(exported: Any) -> Program:
    reader = Reader(exported, EXPORTED, READERS)
    for node in exported.graph.nodes:
        try:
            reader.take(node)
        except Unknown as unknown:
            raise ValueError(f"bounds: no bound is known for {unknown.args[0]}") from None
    kept = sorted(reader.needed())
    numbers = {step: i for i, step in enumerate(kept)}
    names: dict[str, int] = {}
    steps = []
    for step in kept:
        entry = reader.entries[step]
        name = place(entry.node) if step else "images"
        names[name] = names.get(name, 0) + 1
        shown = name if names[name] == 1 else f"{name}#{names[name]}"
        steps.append(
            Step(shown, entry.operation, tuple(numbers[j] for j in entry.sources), entry.shape)
        )
    return Program(tuple(steps))
