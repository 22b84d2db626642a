"""What several metrics of one model need, made once: its fast copy, batch size, clean answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn


class Shared:
    """What is known of one model while it does not change."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._made: dict[Any, Any] = {}
        self._held: list[Tensor] = []  # so that no other tensor takes an address that is a key

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return what ``make`` gave when this was first asked for."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def mask(self, images: Tensor, labels: Tensor, make: Callable[[], Tensor]) -> Tensor:
        """Return ``(N,)`` bool: what ``make`` gave for these images, or for more from the same on.

        Metrics look at the first so many of the same images.
        """
        if images.is_inference() or labels.is_inference():  # changes of those cannot be seen
            return make()
        key = tuple(
            (v.data_ptr(), v.shape[1:], v.stride(), v.dtype, v.device, v._version)
            for v in (images, labels)
        )
        found: Tensor | None = self._made.get(key)
        if found is None or len(found) < len(images):
            found = self._made[key] = make()
            self._held += [images, labels]
        return found[: len(images)]


_shared: ContextVar[Shared | None] = ContextVar("shared", default=None)


@contextmanager
def sharing(model: nn.Module) -> Iterator[Shared]:
    """Within, evaluations of ``model`` share what they know of it; it must not change.

    Blocks of the same model that lie in one another share everything.
    """
    outer = _shared.get()
    if outer is not None and outer.model is model:
        yield outer
        return
    token = _shared.set(Shared(model))
    try:
        yield shared_of(model)
    finally:
        _shared.reset(token)


def shared_of(model: nn.Module) -> Shared:
    """Return what is shared of ``model``; outside of :func:`sharing`, something of its own."""
    found = _shared.get()
    return found if found is not None and found.model is model else Shared(model)
