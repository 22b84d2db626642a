"""How many images to look at together, and what to do when they do not fit."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch
from torch import Tensor, nn

from metrics.deadline import check

LEAST, MOST = 8, {"cpu": 100, "cuda": 1000}
CACHE = 64 * 2**20  # bytes that a CPU's caches keep of what a batch's forward saves
SHARE = 0.5  # of a GPU's free memory
TWICE = 2  # what backward needs beside what forward saved

NO_MEMORY = (
    "out of memory", "can't allocate memory", "not enough memory", "alloc_failed",
    "unable to find a valid cudnn algorithm",
)  # fmt: skip

T = TypeVar("T")
_most: ContextVar[int | None] = ContextVar("most", default=None)


@contextmanager
def at_most(images: int | None) -> Iterator[None]:
    """Within, no more than so many images suit any model (None: as many as the memory allows)."""
    token = _most.set(images)
    try:
        yield
    finally:
        _most.reset(token)


def suitable_batch(model: nn.Module, images: Tensor) -> int:
    """Return how many images at a time suit ``model`` on their device.

    On a CPU what a forward pass saves for its backward pass should stay in the caches; on a GPU
    both passes should fit into half of the memory that is free. Within :func:`at_most` it is no
    more than said there.

    Args:
        model: runs once, on one image.
        images: ``(N, C, H, W)``, of which the first is used.
    """
    kind = images.device.type
    most = MOST.get(kind, MOST["cuda"])
    least, limit = LEAST, _most.get()
    if limit is not None:
        least, most = min(least, limit), min(most, limit)
    room = CACHE if kind != "cuda" else SHARE * free_memory(images.device) / TWICE
    try:
        return max(least, min(most, int(room / saved_bytes(model, images[:1]))))
    except Exception:  # noqa: BLE001  anybody's model: one that cannot be asked is given few
        return least


def saved_bytes(model: nn.Module, images: Tensor) -> int:
    """Return how many bytes a forward pass saves for its backward pass, parameters aside."""
    own = {_address(tensor) for tensor in (*model.parameters(), *model.buffers())}
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if _address(tensor) not in {0, *own}:
            sizes[_address(tensor)] = tensor.untyped_storage().nbytes()
        return tensor.detach()  # an output that its own graph holds would never be freed

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda v: v):
        model(images.detach().clone().requires_grad_().clone())  # which it may write to
    return max(sum(sizes.values()), images.numel() * images.element_size())


def _address(tensor: Tensor) -> int:
    """Return where the values of a tensor begin; 0 of one that keeps them otherwise (sparse)."""
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else 0


def free_memory(device: torch.device) -> int:
    """Return the bytes of a GPU that are free, or that torch holds and does not use."""
    free, _ = torch.cuda.mem_get_info(device)
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free + held)


def in_batches(count: int, size: int, work: Callable[[slice], T]) -> Iterator[tuple[slice, T, int]]:
    """Do ``work`` on ``count`` images, ``size`` at a time; fewer at a time once memory runs out.

    Yields:
        Which images, what came of them, and how many were looked at together.
    """
    start = 0
    while start < count:
        check()
        part = slice(start, min(start + size, count))
        try:
            found = work(part)
        except Exception as error:
            if not out_of_memory(error) or part.stop - start == 1:
                raise
            found = None
        if found is None:  # outside of the except clause, whose traceback holds what was computed
            size = (part.stop - start + 1) // 2
            _release()
            continue
        yield part, found, size
        start = part.stop


def out_of_memory(error: BaseException) -> bool:
    """Whether this says that memory has run out, on a GPU or a CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return says(error, NO_MEMORY)


def says(error: BaseException, parts: Sequence[str]) -> bool:
    """Whether this is an error of torch's whose text has one of these parts, in lower case."""
    try:
        text = str(error).lower()
    except Exception:  # noqa: BLE001  anybody's exception: its text is code too
        return False
    return isinstance(error, RuntimeError) and any(part in text for part in parts)


def _release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
