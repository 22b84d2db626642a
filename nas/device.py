"""Which device numbers are computed on, and in how many threads: the one place that chooses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def choose_device(gpu: bool = True) -> str:
    """Return ``cuda`` where a GPU is wanted and there, else ``cpu``."""
    return "cuda" if gpu and torch.cuda.is_available() else "cpu"


def usable_gpus() -> tuple[list[str], list[int]]:
    """Return the names of the GPUs that torch can use here, and the bytes of their memory."""
    number = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = [torch.cuda.get_device_properties(index) for index in range(number)]
    return [gpu.name for gpu in found], [gpu.total_memory for gpu in found]


def fast_bf16(device: torch.device) -> bool:
    """Whether convolutions in bfloat16 are computed natively there, and so faster than float32.

    On CUDA those of compute capability 8.0 and more, and any card of ROCm, are: it is asked of the
    current card, which a process computes on. (torch by itself also counts cards that emulate it.)
    On a CPU that is for the matrix unit AMX, through oneDNN, which ``ONEDNN_MAX_CPU_ISA`` may keep
    from it. On a Xeon with AMX, one thread, 3 x 3 convolutions of 16 to 64 channels took 0.2 to 0.3
    of the time of float32; with its AVX512_BF16 alone 1.1 to 1.5 of it.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    limits = (os.environ.get(name, "") for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"))
    most = next(filter(None, limits), "ALL").upper()
    return torch.cpu._is_amx_tile_supported() and (most in ("ALL", "DEFAULT") or "AMX" in most)


def why_no_gpu() -> str:
    """Return why torch can use no GPU here; nothing where it can use one."""
    if torch.cuda.is_available():
        return ""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:  # the latter where torch was built without
        return str(error).strip().split("\n")[0].partition(". ")[0]
    return "it sees no GPU"


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Give torch as many threads as a trial has; more of them wait for whatever core is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
