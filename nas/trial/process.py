"""The process that a trial runs in: given back as it was found.

A network is anybody's code. What it sets for the whole process (torch's default dtype, determinism,
threads, the working directory) would go on to the next trial on the same worker, whose scores would
then depend on who came before.
"""

from __future__ import annotations

import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.nn.modules import module as modules

from metrics.precision import precision_settings

Put = Callable[[Any], object]

SWITCHES: dict[str, tuple[Callable[[], Any], Put]] = {
    "default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "deterministic algorithms": (
        lambda: (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        lambda value: torch.use_deterministic_algorithms(value[0], warn_only=value[1]),
    ),
    "threads": (torch.get_num_threads, torch.set_num_threads),
    "gradients": (torch.is_grad_enabled, torch._C._set_grad_enabled),
    "anomaly detection": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    "CPU autocast": (
        lambda: torch.is_autocast_enabled("cpu"),
        lambda value: torch.set_autocast_enabled("cpu", value),
    ),
    "CUDA autocast": (
        lambda: torch.is_autocast_enabled("cuda"),
        lambda value: torch.set_autocast_enabled("cuda", value),
    ),
    "flash attention": (
        torch.backends.cuda.flash_sdp_enabled,
        torch.backends.cuda.enable_flash_sdp,
    ),
    "memory-efficient attention": (
        torch.backends.cuda.mem_efficient_sdp_enabled,
        torch.backends.cuda.enable_mem_efficient_sdp,
    ),
    "math attention": (
        torch.backends.cuda.math_sdp_enabled,
        torch.backends.cuda.enable_math_sdp,
    ),
    "small numbers": (lambda: _flushes_small(), torch.set_flush_denormal),
    "recursion": (sys.getrecursionlimit, sys.setrecursionlimit),
    "numpy's errors": (np.geterr, lambda value: np.seterr(**value)),
    "the directory": (os.getcwd, os.chdir),
    "standard output": (lambda: sys.stdout, lambda value: setattr(sys, "stdout", value)),
    "standard errors": (lambda: sys.stderr, lambda value: setattr(sys, "stderr", value)),
}
"""What is asked and put back where it changed: name -> how to ask, how to put."""

CUDNN = ("enabled", "benchmark", "deterministic")
HOOKS = (
    "_global_backward_pre_hooks",
    "_global_backward_hooks",
    "_global_forward_pre_hooks",
    "_global_forward_hooks",
    "_global_forward_hooks_always_called",
    "_global_forward_hooks_with_kwargs",
    "_global_buffer_registration_hooks",
    "_global_module_registration_hooks",
    "_global_parameter_registration_hooks",
)
"""The dictionaries of hooks that torch runs for every module."""


@contextmanager
def process_as_found(seed: int) -> Iterator[None]:
    """Seed the generators of Python and numpy, and leave the process as it was found.

    Torch's generators are the caller's. What code of a trial patches in classes or modules stays.
    """
    switches = {name: ask() for name, (ask, _) in SWITCHES.items()}
    device = torch.get_default_device()
    cudnn = {name: getattr(torch.backends.cudnn, name) for name in CUDNN}
    hooks = {name: dict(getattr(modules, name, {})) for name in HOOKS}
    environment = dict(os.environ)
    precisions = [setting.fp32_precision for setting in precision_settings()]
    filters = list(warnings.filters)
    drawn = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  the global one is meant
    try:
        yield
    finally:
        random.setstate(drawn[0])
        np.random.set_state(drawn[1])  # noqa: NPY002
        if torch.get_default_device() != device:
            torch.set_default_device(None if device.type == "cpu" else device)
        for name, (ask, put) in SWITCHES.items():
            if ask() != switches[name]:
                put(switches[name])
        for name, value in cudnn.items():
            if getattr(torch.backends.cudnn, name) != value:
                setattr(torch.backends.cudnn, name, value)
        for setting, value in zip(precision_settings(), precisions, strict=True):
            if setting.fp32_precision != value:
                setting.fp32_precision = value
        for name, found in hooks.items():
            there = getattr(modules, name, {})
            if there.keys() != found.keys():
                there.clear()
                there.update(found)
        if dict(os.environ) != environment:
            os.environ.clear()
            os.environ.update(environment)
        if warnings.filters != filters:
            warnings.filters[:] = filters  # type: ignore[index]


def _flushes_small() -> bool:
    return bool((torch.tensor(1e-310, dtype=torch.float64, device="cpu") * 1).item() == 0)
