"""Which errors are of the device, so that nothing more can be done on it in this process."""

from __future__ import annotations

import torch

from metrics.engine.memory import out_of_memory, says

OF_A_DEVICE = (
    "cuda error", "hip error", "cudnn_status_execution_failed", "cudnn_status_internal_error",
    "cudnn_status_not_initialized", "cublas_status_execution_failed",
    "cublas_status_internal_error", "cublas_status_not_initialized", "device-side assert",
    "cuda driver", "nvidia driver", "no cuda gpus are available", "no hip gpus are available",
    "cuda initialization", "nvml", "nccl error", "ecc error", "fallen off the bus",
    "invalid device ordinal", "unspecified launch failure", "illegal memory access",
)  # fmt: skip
AcceleratorError: type[BaseException] | None = getattr(torch, "AcceleratorError", None)


def device_fault(error: BaseException) -> bool:
    """Whether this says that a device has failed: a sticky CUDA error, a lost GPU, no driver.

    Memory that has run out is none (:func:`out_of_memory`). A kernel that an architecture breaks
    (an assertion on the device, say) looks the same, so one such error does not tell which it was.
    """
    if out_of_memory(error):
        return False
    if AcceleratorError is not None and isinstance(error, AcceleratorError):
        return True
    return says(error, OF_A_DEVICE)
