"""A model is looked at in ``eval()`` and left as it was found, bit for bit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module in ``eval()``; give everything back, also on an exception.

    Raises:
        ValueError: a model that has no ``eval()``.
    """
    found = Snapshot(model)
    try:
        try:
            model.eval()
        except NotImplementedError as error:
            raise ValueError(
                "model: expected a module that can be put in eval(), got one that stays in the "
                "mode it was exported in; pass the module that was exported"
            ) from error
        yield
    finally:
        found.restore()


class Snapshot:
    """What a model holds: the modes of its modules, its parameters and its buffers.

    A forward pass can change any of them: a counter, a batch norm that is told to train, an
    observer that resizes its buffers; and ``eval()`` can, where ``train(mode)`` is overridden, as
    in modules that merge weights for inference.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modes = [(module, module.training) for module in model.modules()]
        self._registries = [
            (registry, dict(registry))
            for module in model.modules()
            if not isinstance(module, torch.jit.ScriptModule)
            for registry in (module._parameters, module._buffers)
        ]
        held = {id(t): t for t in (*model.parameters(), *model.buffers())}
        # Tensors of inference_mode cannot be written to outside of it, nor uninitialised ones read.
        self._values = _Values([t for t in held.values() if not t.is_inference()])

    def restore(self) -> None:
        """Put everything back that is not as it was; what is, is not written to."""
        for module, mode in self._modes:  # parents first: theirs may call their children's
            if module.training == mode:
                continue
            if type(module).train is not nn.Module.train or "train" in vars(module):
                module.train(mode)
            else:
                module.training = mode
        for registry, before in self._registries:
            _restore(registry, before)
        self._values.restore()

    def changed(self) -> bool:
        """Whether a parameter or buffer is another one, or has another value."""
        return self._values.changed() or any(
            registry.keys() != before.keys()
            or any(registry[name] is not tensor for name, tensor in before.items())
            for registry, before in self._registries
        )


class _Values:
    """The bits of tensors, those of a device side by side: one comparison, one look at a GPU."""

    def __init__(self, tensors: list[Tensor]) -> None:
        self._plain: dict[torch.device, list[tuple[Tensor, torch.Size]]] = defaultdict(list)
        self._odd: list[tuple[Tensor, Tensor]] = []  # sparse, quantised, ...: one by one
        for tensor in tensors:
            if tensor.layout is torch.strided and not tensor.is_quantized and not tensor.is_meta:
                self._plain[tensor.device].append((tensor, tensor.shape))
            elif not tensor.is_meta:
                self._odd.append((tensor, tensor.detach().clone()))
        self._bits = {
            device: torch.cat([_bits(tensor) for tensor, _ in held])
            for device, held in self._plain.items()
        }

    def changed(self) -> bool:
        return any(self._differ(device) for device in self._plain) or any(
            not _equal(tensor, before) for tensor, before in self._odd
        )

    def restore(self) -> None:
        for device, held in self._plain.items():
            if self._differ(device):
                self._restore(held, self._bits[device])
        for tensor, before in self._odd:
            if not _equal(tensor, before):
                tensor.detach().copy_(before)

    def _differ(self, device: torch.device) -> bool:
        held, before = self._plain[device], self._bits[device]
        if any(tensor.shape != shape for tensor, shape in held):
            return True
        return not torch.equal(torch.cat([_bits(tensor) for tensor, _ in held]), before)

    @staticmethod
    def _restore(held: list[tuple[Tensor, torch.Size]], bits: Tensor) -> None:
        sizes = [shape.numel() * tensor.element_size() for tensor, shape in held]
        for (tensor, shape), before in zip(held, bits.split(sizes), strict=True):
            if tensor.shape == shape and torch.equal(_bits(tensor), before):
                continue
            with torch.no_grad():
                if tensor.shape != shape:
                    tensor.resize_(shape)
                # .data: the version counter stays, for a backward pass that is pending.
                tensor.data.copy_(before.clone().view(tensor.dtype).view(shape))


def _restore(registry: MutableMapping[str, Any], before: dict[str, Any]) -> None:
    for name in [name for name in registry if name not in before]:
        del registry[name]
    for name, tensor in before.items():
        if name not in registry or registry[name] is not tensor:
            registry[name] = tensor


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().reshape(-1).view(torch.uint8)


def _equal(a: Tensor, b: Tensor) -> bool:
    if a.layout is not torch.strided:
        a, b = a.to_dense(), b.to_dense()
    return a.shape == b.shape and torch.equal(a, b)
