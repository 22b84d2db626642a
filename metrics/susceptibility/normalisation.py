"""What batch norms do while Ψ is measured: the paper's Table 2 hangs on it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from metrics.answers import outputs_of
from metrics.checks import check_outputs, scripted
from metrics.left_as_found import evaluating
from metrics.precision import widened

BATCH_NORM = ("eval", "frozen", "batch")
FEW = 4  # inputs, below which the statistics of a batch say little
SAME = 0.01  # share of the outputs' range by which frozen statistics may miss those of the batch


@contextmanager
def normalising(model: nn.Module, images: Tensor, batch_norm: str) -> Iterator[None]:
    """Put the batch norms in the asked mode; modes and running statistics come back.

    Args:
        model: left as found.
        images: the clean batch whose statistics ``frozen`` takes.
        batch_norm: ``eval`` for a trained model; ``frozen`` takes the statistics of one clean
            batch, then stays in ``eval()`` (an untrained model: its running statistics are none);
            ``batch`` takes those of every batch, which couples the inputs.

    Raises:
        ValueError: ``frozen`` or ``batch`` of a model some of whose batch norms are out of reach
            (in TorchScript, or called as functions), or whose clean outputs frozen statistics do
            not give again (a batch norm that is called twice).

    Warns:
        UserWarning: statistics of fewer than 4 inputs.
    """
    norms = batch_norms(model)
    if batch_norm != "eval" and norms and len(images) < FEW:
        warnings.warn(
            f"batch norm statistics of {len(images)} inputs: expected at least {FEW}",
            stacklevel=3,
        )
    with evaluating(model), _eagerly():
        if batch_norm != "eval":
            _check_reach(model, batch_norm)
            for norm in norms:  # on buffers of its own: those of the model are not written to
                for name, buffer in norm._buffers.items():
                    norm._buffers[name] = None if buffer is None else buffer.clone()
        if batch_norm == "batch":
            for norm in norms:
                norm.train()
            _run(model, norms, images[:FEW])  # says what is out of reach
        elif batch_norm == "frozen":
            _freeze(model, norms, images)
        yield


def _eagerly() -> AbstractContextManager[Any]:
    """Run compiled models as they were written: a compiled one does not see hooks or new buffers.

    A context of torch's compiler, which takes seconds to load; where nothing has loaded it, nothing
    is compiled.
    """
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    eager: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return eager


def coupled(model: nn.Module, batch_norm: str) -> bool:
    """Whether an input's output depends on which others are in its batch."""
    norms = batch_norms(model)
    return any(norm.running_mean is None for norm in norms) or (
        batch_norm == "batch" and bool(norms)
    )


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the batch norms of a model."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def check_batch_norm(batch_norm: str) -> None:
    """Raise ValueError for an unknown mode."""
    if batch_norm not in BATCH_NORM:
        raise ValueError(f"batch_norm: expected one of {list(BATCH_NORM)}, got {batch_norm!r}")


def _freeze(model: nn.Module, norms: list[_BatchNorm], images: Tensor) -> None:
    """Give every norm the mean and variance of what reaches it, from the first norm to the last.

    torch's own running variance is the unbiased one, larger than what a batch is divided by: by a
    seventh for 8 inputs of 1 x 1, and in every layer again.
    """

    frozen: dict[nn.Module, int] = dict.fromkeys(norms, 0)

    def take(norm: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        x = inputs[0] if inputs else named["input"]
        variance, mean = torch.var_mean(widened(x), dim=[0, *range(2, x.ndim)], correction=0)
        for name, value in (("running_var", variance), ("running_mean", mean)):
            buffer = norm._buffers.get(name)
            if buffer is not None:
                buffer.copy_(value)
        frozen[norm] += 1

    handles = [norm.register_forward_pre_hook(take, with_kwargs=True) for norm in norms]
    try:
        expected = _run(model, norms, images)
    finally:
        for handle in handles:
            handle.remove()
    if max(frozen.values(), default=0) < 2:  # called once each: what it gave is what it will give
        return
    got = _run(model, norms, images)
    if not (got - expected).abs().max() <= SAME * expected.abs().max():
        name = next(n for n, m in model.named_modules() if frozen.get(m, 0) > 1)
        raise ValueError(
            f"batch_norm frozen: expected batch norms that are called once, got {name!r}, which "
            "normalises several inputs and has statistics of one; use eval or batch"
        )


def _run(model: nn.Module, norms: list[_BatchNorm], images: Tensor) -> Tensor:
    """Return clean outputs; refuse a model that normalises a batch outside of its modules."""
    seen = _Functions()

    def enters(*_: Any) -> None:
        seen.inside += 1

    def leaves(*_: Any) -> None:
        seen.inside -= 1

    handles = [norm.register_forward_pre_hook(enters) for norm in norms]
    handles += [norm.register_forward_hook(leaves, always_call=True) for norm in norms]
    try:
        with torch.no_grad(), seen:
            outputs = check_outputs(outputs_of(model, images), len(images))
    finally:
        for handle in handles:
            handle.remove()
    if seen.outside:
        raise ValueError(
            "batch_norm: expected batch norms that are modules (torch.nn.BatchNorm2d, ...), got "
            "a batch norm that is called as a function, whose statistics are out of reach; use eval"
        )
    return outputs


class _Functions(TorchFunctionMode):
    """Counts batch norms that are called outside of a batch norm's module."""

    inside = outside = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if "batch_norm" in str(func) and not self.inside:
            self.outside += 1
        return func(*args, **(kwargs or {}))


def _check_reach(model: nn.Module, batch_norm: str) -> None:
    for name, other in model.named_modules():
        own = dict(other.named_buffers(recurse=False)).get("running_mean")
        if own is not None and not isinstance(other, _BatchNorm | torch.jit.ScriptModule):
            raise ValueError(
                f"batch_norm {batch_norm}: expected batch norms of torch, got {name!r}, a "
                f"{type(other).__name__} with a running mean of its own, which stays; use eval"
            )
    for module in scripted(model):
        graph: Any = getattr(module, "inlined_graph", None)
        if graph is not None and graph.findAllNodes("aten::batch_norm"):
            raise ValueError(
                f"batch_norm {batch_norm}: expected batch norms within reach, got those of a "
                "TorchScript module, whose statistics stay; pass the module it was made of"
            )
