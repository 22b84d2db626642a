"""A model is looked at in ``eval()`` and left as it was found, bit for bit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module in ``eval()``; give everything back, also on an exception.

    Raises:
        ValueError: a model that ``eval()`` does not change.
    """
    found = Snapshot(model)
    try:
        try:
            for module in (model, *hidden_modules(model)):
                module.eval()
        except NotImplementedError as error:
            raise ValueError(
                "model: expected a module that can be put in eval(), got one that stays in the "
                "mode it was exported in; pass the module that was exported"
            ) from error
        if model.training:
            raise ValueError(
                "model: expected a module that eval() puts in evaluation mode, got one whose "
                "eval() or train() is overridden and does not"
            )
        yield
    finally:
        found.restore()


class Snapshot:
    """What a model holds: modes, attributes, parameters, buffers and gradients.

    A forward pass can change any of them: a counter, a batch norm that is told to train, an
    observer that resizes its buffers; and ``eval()`` can, where ``train(mode)`` is overridden, as
    in modules that merge weights for inference. What an attribute holds is not looked into, but
    for tensors: a list that a forward appends to stays longer.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = [
            module for part in (model, *hidden_modules(model)) for module in part.modules()
        ]
        plain = [m for m in self._modules if not isinstance(m, torch.jit.ScriptModule)]
        self._modes = [(module, module.training) for module in self._modules]
        self._attributes = [(vars(module), dict(vars(module))) for module in plain]
        self._registries = [
            (held, dict(held))
            for module in plain
            for held in vars(module).values()
            if isinstance(held, dict)
        ]
        self._scripted = [
            (module, dict(module.named_buffers(recurse=False)))
            for module in self._modules
            if isinstance(module, torch.jit.ScriptModule)
        ]
        tensors = {id(t): t for m in self._modules for t in (*m.parameters(), *m.buffers())}
        self._gradients = [(t, t.requires_grad, t.grad) for t in tensors.values() if t.is_leaf]
        tensors |= {id(g): g for _, _, g in self._gradients if g is not None}
        # Tensors of inference_mode cannot be written to outside of it, nor uninitialised ones read.
        self._values = _Values([t for t in tensors.values() if not t.is_inference()])

    def restore(self) -> None:
        """Put everything back that is not as it was; what is, is not written to."""
        for module, mode in self._modes:  # parents first: theirs may call their children's
            if module.training == mode:
                continue
            if type(module).train is not nn.Module.train or "train" in vars(module):
                module.train(mode)
            else:
                module.training = mode
        for held, before in (*self._attributes, *self._registries):
            _restore(held, before)
        for module, buffers in self._scripted:
            now = dict(module.named_buffers(recurse=False))
            for name, buffer in buffers.items():
                if now[name] is not buffer:
                    setattr(module, name, buffer)
        self._values.restore()  # first: a gradient must have the shape of its tensor
        for tensor, requires_grad, gradient in self._gradients:
            if tensor.requires_grad != requires_grad:
                tensor.requires_grad_(requires_grad)
            if tensor.grad is not gradient:
                tensor.grad = gradient

    def changed(self) -> bool:
        """Whether a parameter or buffer is another one, or has another value."""
        return self._values.changed() or any(
            held.keys() != before.keys()
            or any(held[name] is not value for name, value in before.items())
            for held, before in self._registries
        )


class _Values:
    """The bits of tensors, those of a device side by side: one comparison, one look at a GPU."""

    def __init__(self, tensors: list[Tensor]) -> None:
        self._plain: dict[torch.device, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        self._odd: list[tuple[Tensor, Tensor]] = []  # sparse, quantised, ...: one by one
        for tensor in tensors:
            data = tensor.data  # keeps the storage, the type and the shape of now
            if tensor.is_meta:
                continue
            if tensor.layout is torch.strided and not tensor.is_quantized and not tensor.is_nested:
                self._plain[tensor.device].append((tensor, data))
            else:
                self._odd.append((tensor, data.clone()))
        self._bits = {
            device: torch.cat([_bits(data) for _, data in held])
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
                tensor.data = before.clone()
            if not _equal(tensor, before):  # compressed sparse tensors take no other data
                tensor.data.resize_as_sparse_(before).copy_(before)

    def _differ(self, device: torch.device) -> bool:
        held = self._plain[device]
        if any(_moved(tensor, data) for tensor, data in held):
            return True
        return not torch.equal(torch.cat([_bits(t) for t, _ in held]), self._bits[device])

    @staticmethod
    def _restore(held: list[tuple[Tensor, Tensor]], bits: Tensor) -> None:
        sizes = [data.numel() * data.element_size() for _, data in held]
        for (tensor, data), before in zip(held, bits.split(sizes), strict=True):
            if _moved(tensor, data):
                tensor.data = data
            if not torch.equal(_bits(data), before):
                # .data: the version counter stays, for a backward pass that is pending.
                data.copy_(before.clone().view(data.dtype).view(data.shape))


def hidden_modules(model: nn.Module) -> list[nn.Module]:
    """Return modules that a model holds where ``eval()`` does not reach: in lists and the like."""
    known = set(map(id, model.modules()))
    found: list[nn.Module] = []
    for module in _attribute_modules(model.modules()):
        if id(module) not in known:
            found.append(module)
            known |= set(map(id, module.modules()))
    return found


def _attribute_modules(modules: Iterable[nn.Module]) -> Iterator[nn.Module]:
    for module in modules:
        if isinstance(module, torch.jit.ScriptModule):
            continue
        for name, value in vars(module).items():
            if name in ("_modules", "_parameters", "_buffers") or "hooks" in name:
                continue
            items = value.values() if isinstance(value, dict) else value
            held = items if isinstance(value, dict | list | tuple | set) else (value,)
            yield from (item for item in held if isinstance(item, nn.Module))


def _restore(held: dict[str, Any], before: dict[str, Any]) -> None:
    for name in [name for name in held if name not in before]:
        del held[name]
    for name, value in before.items():
        if name not in held or held[name] is not value:
            held[name] = value
    if list(held) != list(before):  # in their order, which calls of children and hooks follow
        for name in before:
            held[name] = held.pop(name)


def _moved(tensor: Tensor, data: Tensor) -> bool:
    """Whether a tensor has other memory, another type or another shape than it had."""
    return (
        tensor.dtype != data.dtype
        or tensor.shape != data.shape
        or tensor.device != data.device
        or tensor.stride() != data.stride()
        or tensor.data_ptr() != data.data_ptr()
    )


def _bits(tensor: Tensor) -> Tensor:
    flat = tensor.detach().resolve_conj().resolve_neg().reshape(-1)
    if flat.stride() != (1,):  # a vector that is a view of something, which reshape leaves one
        flat = flat.clone(memory_format=torch.contiguous_format)
    return flat.view(torch.uint8)


def _equal(a: Tensor, b: Tensor) -> bool:
    if a.layout is not torch.strided:
        a, b = a.to_dense(), b.to_dense()
    return a.shape == b.shape and torch.equal(a, b)
