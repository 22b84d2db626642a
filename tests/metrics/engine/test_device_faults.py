"""Which errors end a process's work on a device, by what CUDA's libraries say of them."""

from __future__ import annotations

import pytest
import torch

from metrics.engine.device_faults import device_fault
from metrics.engine.memory import out_of_memory


class Loud(RuntimeError):
    def __str__(self):
        raise ValueError("no text")


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (RuntimeError("CUDA error: an illegal memory access was encountered"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), True),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), True),
        (RuntimeError("No CUDA GPUs are available"), True),
        (RuntimeError("Found no NVIDIA driver on your system."), True),
        # what an architecture does, or memory
        (RuntimeError("CUDA error: out of memory"), False),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), False),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"), False),
        (OSError("CUDA error: a file of that name"), False),
        (Loud(), False),
    ],
    ids=lambda value: value.args[0][:40] if isinstance(value, Exception) and value.args else None,
)
def test_faults_of_a_device(error, fault):
    assert device_fault(error) == fault


@pytest.mark.skipif(not hasattr(torch, "AcceleratorError"), reason="torch has no such class yet")
def test_torchs_own_class():
    assert device_fault(torch.AcceleratorError("an illegal memory access was encountered"))


def test_memory_that_has_run_out_of_an_exception_without_text():
    assert not out_of_memory(Loud())
