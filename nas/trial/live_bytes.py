"""Bytes that live tensors hold, counted operation by operation, of tensors that have no values.

Under torch's ``FakeTensorMode`` every operation gives tensors with shape, strides and type but no
memory, so a training step of any size takes the time of its Python. :class:`LiveBytes` looks at
what each one returns, and remembers a storage until the last tensor on it is gone: autograd keeps
alive here what it would keep alive there. Of what an operation allocates and frees inside of its
kernel, copies of tensors in another layout are counted (:data:`OF_ONE_LAYOUT`), workspaces are not.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
POOLS = aten.max_pool2d_with_indices_backward.default, aten.avg_pool2d_backward.default
OF_ONE_LAYOUT = frozenset(
    (
        aten.convolution.default,
        aten.convolution_backward.default,
        aten.native_batch_norm_backward.default,
        *POOLS,
    )
)
"""What copies images inside, see :func:`_within`."""


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages that operations within have made and that are alive.

    A number that the host asks of a tensor without values is 0 or False: an attack then finds
    nothing broken, and goes on with every image.

    Attributes:
        now: bytes alive.
        most: the largest ``now`` since :meth:`begin`.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._known: dict[int, tuple[weakref.ref[Any], int]] = {}

    def begin(self) -> None:
        """Look for a new largest number from here on."""
        self.most = self.now

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is aten._local_scalar_dense.default:
            return args[0].dtype.is_floating_point and 0.0
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._note(tensor)
        if func in OF_ONE_LAYOUT:
            self.most = max(self.most, self.now + _within(func, args))
        return out

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()
        self._known[key] = weakref.ref(storage, self._forgotten(key)), size
        self.now += size
        self.most = max(self.most, self.now)

    def _forgotten(self, key: int) -> Callable[[Any], None]:
        def forget(_: Any) -> None:
            self.now -= self._known.pop(key)[1]

        return forget


def _within(func: Any, args: tuple[Any, ...]) -> int:
    """Return the bytes that an operation holds inside: copies of images in another layout.

    oneDNN's convolutions in the contiguous layout reorder both; the gradient of batch norm keeps
    one batch more, and that of a pool copies the outer gradient and the indices. Measured with
    torch 2.14 on a CPU.
    """
    images = [v for v in args if isinstance(v, Tensor) and v.ndim == 4]
    if func is aten.native_batch_norm_backward.default:
        return _bytes(images[0]) if images else 0
    if func in POOLS:
        gradient, of = args[:2]
        mixed = of.ndim == 4 and _is_channels_last(gradient) != _is_channels_last(of)
        return sum(_bytes(v) for v in images if v is not of) if mixed else 0
    if not any(_is_channels_last(v) for v in images):
        return sum(_bytes(v) for v in images)
    return sum(_bytes(v) for v in images if not v.is_contiguous(memory_format=torch.channels_last))


def _is_channels_last(v: Tensor) -> bool:
    return v.stride(1) == 1 and v.stride(3) == v.size(1) > 1


def _bytes(v: Tensor) -> int:
    return v.numel() * v.element_size()


@contextmanager
def without_values() -> Iterator[LiveBytes]:
    """Within, tensors that are made are on the CPU by name, have no memory, and are counted."""
    with FakeTensorMode(allow_non_fake_inputs=True), LiveBytes() as live:
        yield live


def emptied(model: nn.Module) -> nn.Module:
    """Return ``model``, built on the meta device, with tensors of the mode that is on instead."""

    def like(tensor: Tensor) -> Tensor:
        return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device="cpu")

    found: nn.Module = model._apply(like)
    return found
