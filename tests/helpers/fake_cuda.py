"""A CUDA device for machines that have none: it computes on the CPU, and is as strict as CUDA.

    with fake_cuda() as gpu:
        generator = torch.Generator("cuda").manual_seed(0)
        attack(model.to("cuda"), images.to("cuda"), labels.to("cuda"), generator=generator)
        print(gpu.syncs)

Its tensors say that they are on cuda:0 and hold the numbers that the CPU computes, so a result on
it can be compared with the CPU's to the last digit. It refuses what CUDA refuses: tensors of two
devices in one operation (one CPU number aside), a generator of the other device, CUDA indices into
a CPU tensor, numpy. ``gpu.syncs`` counts by name what makes the host wait for a GPU's numbers; an
upload, which waits for its stream too, is not counted.

A :class:`CudaTensor` wraps a CPU tensor. Below autograd every operation on one comes to its
``__torch_dispatch__``, also those inside of other operations and of a backward pass. To C++ it is a
CPU tensor, so nothing there asks for a driver. What makes or moves tensors goes by a device that
C++ must not see: :class:`FakeCuda`, a mode, takes that in hand above.

Stricter than CUDA: ``torch.tensor`` of CUDA tensors, one transfer an element, is refused, and so is
every write of a CUDA tensor into a part of a CPU tensor that is chosen by indices.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
NAME = "fake CUDA device"
PEAK = 12_345_678  # bytes, whatever was done

WAITS = {
    "_local_scalar_dense": "item",  # also of bool(), int() and float()
    "_linalg_eigh": "eigh",
    "_unique": "unique",
    "_unique2": "unique",
    "allclose": "allclose",
    "bincount": "bincount",
    "equal": "equal",
    "masked_select": "masked_select",
    "nonzero": "nonzero",
    "unique_consecutive": "unique",
    "unique_dim": "unique",
}
"""Operation -> its name in ``syncs``, of those that wait for the GPU whatever they are given."""

READS_INDICES = {"index", "_unsafe_index"}
WRITES_INDICES = {"index_put", "index_put_", "_index_put_impl_", "_unsafe_index_put"}
TAKES_NUMBERS = WRITES_INDICES | {"fill", "fill_", "masked_fill", "masked_fill_"}
"""What takes one CPU number beside GPU tensors, as elementwise operations do."""

_autocast = torch.autocast


class CudaTensor(torch.Tensor):
    """A tensor on the fake device; ``inner`` has its numbers."""

    inner: Tensor
    gpu: FakeCuda

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor, gpu: FakeCuda) -> CudaTensor:
        with torch.inference_mode(inner.is_inference()):
            self = torch.Tensor._make_wrapper_subclass(
                cls,
                inner.shape,
                strides=inner.stride(),
                storage_offset=inner.storage_offset(),
                dtype=inner.dtype,
                device=CPU,
            )
        self.inner, self.gpu = inner, gpu
        return self

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        torch.Tensor.data.__set__(self, value)
        self.inner = value.inner

    def get_device(self) -> int:
        return CUDA.index

    def tolist(self) -> Any:
        self.gpu.syncs["tolist"] += 1
        return self.inner.tolist()

    def numpy(self, **_: Any) -> None:
        raise TypeError(
            f"can't convert {CUDA} device type tensor to numpy. Use Tensor.cpu() to copy the "
            "tensor to host memory first."
        )

    def __array__(self, *_: Any, **__: Any) -> None:
        self.numpy()

    def __repr__(self, **_: Any) -> str:
        return f"{self.inner!r} on {CUDA}"

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = list(_tensors((args, kwargs)))
        ours = [v for v in tensors if isinstance(v, CudaTensor)]
        gpu = ours[0].gpu
        _check_devices(func, args, tensors)
        gpu.count(func, args, kwargs)
        with gpu.drawing(torch.Tag.nondeterministic_seeded in func.tags):
            out = func(*_each(_inner, args), **_each(_inner, kwargs))
        if _name(func) == "copy_" and not isinstance(args[0], CudaTensor):
            return out
        given = {id(v.inner): v for v in ours}  # what is written in place is returned as it came
        return _each(lambda v: given[id(v)] if id(v) in given else CudaTensor(v, gpu), out)


class FakeCuda(TorchFunctionMode):
    """The device; made by :func:`fake_cuda`.

    Attributes:
        syncs: name -> how often the host had to wait.
        generator: what draws on the device where no generator is named.
    """

    def __init__(self) -> None:
        super().__init__()
        self.syncs: Counter[str] = Counter()
        self.generator = Generator("cuda")

    def __deepcopy__(self, memo: Any) -> FakeCuda:
        return self  # of a copied tensor too

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func == torch.Tensor.data.__set__ and args[0].device != args[1].device:
            raise RuntimeError(f"data: expected it on {args[0].device}, got {args[1].device}")
        if args and isinstance(args[0], Tensor):
            if func is torch.Tensor.to:
                return self._to(*args, **kwargs)
            if func is torch.Tensor.cuda:
                return self._move(args[0], CUDA)
            if func is torch.Tensor.cpu:
                return self._move(args[0], CPU)
        device = kwargs.get("device")
        device = torch.device(device) if isinstance(device, str | torch.device) else None
        if func is torch.Tensor.new_tensor:
            device = device or args[0].device
        _check_generator(kwargs.get("generator"), device, args)
        if func is torch.tensor and any(isinstance(v, CudaTensor) for v in _tensors(args)):
            raise RuntimeError(f"torch.tensor: expected numbers, got tensors on {CUDA}")
        if device is None:
            return func(*args, **kwargs)
        if func in (torch.as_tensor, torch.asarray) and isinstance(args[0], Tensor):
            return self._to(args[0], device, kwargs.get("dtype"))
        differentiable = kwargs.pop("requires_grad", False)
        kwargs["device"] = CPU if device.type == "cuda" else device
        with self.drawing(device.type == "cuda"):
            made = func(*args, **kwargs)  # a factory, new_* or *_like
        made = made.inner if isinstance(made, CudaTensor) else made
        made = CudaTensor(made, self) if device.type == "cuda" else made
        return made.requires_grad_() if differentiable else made

    def count(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Count the operation if CUDA waits for what came before it."""
        name = _name(func)
        if name in WAITS:
            self.syncs[WAITS[name]] += 1
        elif name == "repeat_interleave" and kwargs.get("output_size") is None:
            self.syncs["repeat_interleave"] += 1
        elif name == "copy_" and not isinstance(args[0], CudaTensor):
            self.syncs["cpu"] += 1
        elif name in READS_INDICES | WRITES_INDICES:
            if name in WRITES_INDICES and args[2].ndim == 0 and args[2].device == CPU:
                return  # a fill with one CPU number; else a mask is turned into indices
            for index in args[1]:
                if isinstance(index, CudaTensor) and index.dtype == torch.bool:
                    self.syncs["mask"] += 1

    @contextlib.contextmanager
    def drawing(self, here: bool = True) -> Iterator[None]:
        """Let what is drawn without a generator come from the device's own, not the CPU's."""
        if not here:
            yield
            return
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self.generator.get_state())
            yield
            self.generator.set_state(torch.get_rng_state())

    def _to(self, x: Tensor, *args: Any, copy: bool = False, **kwargs: Any) -> Tensor:
        other = kwargs.pop("other", args[0] if args else None)
        if isinstance(other, Tensor):
            args = (other.device, other.dtype, *args[1:])
        device, dtype, runs_on, layout = torch._C._nn._parse_to(*args, **kwargs)
        layout = torch.preserve_format if layout is None else layout
        x = torch.Tensor.to(x, dtype or x.dtype, copy=copy, memory_format=layout)
        return self._move(x, device or x.device, waits=not runs_on)

    def _move(self, x: Tensor, device: torch.device, *, waits: bool = True) -> Tensor:
        if "cuda" not in (x.device.type, device.type):
            return torch.Tensor.to(x, device)
        return x if x.device.type == device.type else _Move.apply(x, self, waits)


class _Move(torch.autograd.Function):
    """To the other device and, for the gradient, back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gpu: FakeCuda, waits: bool) -> Tensor:
        ctx.gpu = gpu
        if isinstance(x, CudaTensor):
            if waits:
                gpu.syncs["cpu"] += 1
            return x.inner.clone()
        return CudaTensor(x.detach().clone(), gpu)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _Move.apply(gradient, ctx.gpu, True), None, None


class Event:
    """An event that has happened when it is recorded; waiting for one is counted as ``event``."""

    def __init__(self, gpu: FakeCuda) -> None:
        self._gpu = gpu

    def record(self) -> None:
        pass

    def synchronize(self) -> None:
        self._gpu.syncs["event"] += 1


class Generator(torch.Generator):
    """A CPU generator that may say it is on cuda:0: the same seed draws the same there."""

    def __new__(cls, device: Any = "cpu") -> Generator:
        return super().__new__(cls, "cpu")

    def __init__(self, device: Any = "cpu") -> None:
        self._device = CUDA if torch.device(device).type == "cuda" else CPU

    device = property(lambda self: self._device)


@contextlib.contextmanager
def fake_cuda(*, bf16: bool = False) -> Iterator[FakeCuda]:
    """Give torch a CUDA device, in this thread and within; tensors on it may outlive it.

    It says that it has no bf16, so that ``auto`` computes in float32 as on the CPU, unless ``bf16``
    says that it has; autocast is the CPU's.
    """
    gpu = FakeCuda()

    def autocast(device_type: str, *args: Any, **kwargs: Any) -> Any:
        return _autocast("cpu" if device_type == "cuda" else device_type, *args, **kwargs)

    def synchronize(device: Any = None) -> None:
        gpu.syncs["synchronize"] += 1

    torch_has = {"Generator": Generator, "autocast": autocast}
    cuda_has = {
        "Event": lambda: Event(gpu),
        "current_device": lambda: 0,
        "default_generators": (gpu.generator,),
        "device_count": lambda: 1,
        "empty_cache": lambda: None,
        "get_device_name": lambda device=None: NAME,
        "get_rng_state": lambda device="cuda": gpu.generator.get_state(),
        "is_available": lambda: True,
        "is_bf16_supported": lambda *_, **__: bf16,
        "is_current_stream_capturing": lambda: False,
        "manual_seed": gpu.generator.manual_seed,
        "manual_seed_all": gpu.generator.manual_seed,
        "max_memory_allocated": lambda device=None: PEAK,
        "mem_get_info": lambda device=None: (2**33, 2**34),
        "reset_peak_memory_stats": lambda device=None: None,
        "set_rng_state": lambda state, device="cuda": gpu.generator.set_state(state),
        "synchronize": synchronize,
    }
    future = torch.__future__  # a module's parameters are replaced: a CPU tensor cannot become ours
    overwrites = future.get_overwrite_module_params_on_conversion()
    with (
        mock.patch.multiple(torch, **torch_has),
        mock.patch.multiple(torch.cuda, **cuda_has),
        mock.patch.multiple(torch.accelerator, current_accelerator=lambda *_, **__: None),
        gpu,
    ):
        future.set_overwrite_module_params_on_conversion(True)
        try:
            yield gpu
        finally:
            future.set_overwrite_module_params_on_conversion(overwrites)


def _name(func: Any) -> str:
    return func.overloadpacket.__name__


def _inner(tensor: Tensor) -> Tensor:
    return tensor.inner if isinstance(tensor, CudaTensor) else tensor


def _each(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Return ``value`` with ``function`` of each tensor; torch's own pytree takes far longer."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple | list):
        return type(value)([_each(function, v) for v in value])
    if isinstance(value, dict):
        return {name: _each(function, v) for name, v in value.items()}
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list | dict):
        for v in value.values() if isinstance(value, dict) else value:
            yield from _tensors(v)


def _check_devices(func: Any, args: tuple[Any, ...], tensors: list[Tensor]) -> None:
    """Raise RuntimeError unless CUDA would take tensors of these devices together."""
    name = _name(func)
    if name == "copy_":
        return
    strangers = [v for v in tensors if not isinstance(v, CudaTensor)]
    if func._schema.is_mutable and any(v is args[0] for v in strangers):
        raise RuntimeError(f"{name}: expected tensors on cpu, to write into one, got some on cuda")
    if name in READS_INDICES | WRITES_INDICES:
        if not isinstance(args[0], CudaTensor):
            raise RuntimeError("indices should be either on cpu or on the same device as the "
                               "indexed tensor (cpu)")  # fmt: skip
        strangers = [v for v in strangers if not any(v is i for i in args[1])]
    takes_numbers = torch.Tag.pointwise in func.tags or name in TAKES_NUMBERS
    if wrong := [tuple(v.shape) for v in strangers if v.ndim or not takes_numbers]:
        raise RuntimeError(
            f"{name}: expected all tensors to be on the same device, but found at least two "
            f"devices, {CUDA} and cpu (of shapes {wrong})"
        )


def _check_generator(generator: Any, device: torch.device | None, args: tuple[Any, ...]) -> None:
    """Raise RuntimeError for a generator that is not where the draw is."""
    if not isinstance(generator, torch._C.Generator):
        return
    on_gpu = any(isinstance(v, CudaTensor) for v in _tensors(args))
    expected = (device or (CUDA if on_gpu else CPU)).type
    if generator.device.type != expected:
        raise RuntimeError(f"Expected a '{expected}' device type for generator but found "
                           f"'{generator.device.type}'")  # fmt: skip
