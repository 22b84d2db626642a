"""Work on a finished model here, or on a worker of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

from launch.config.sections import Resources
from nas.device import choose_device, why_no_gpu
from nas.errors import InputError

Result = TypeVar("Result")


def named_device(name: str) -> str:
    """Return ``cuda`` or ``cpu`` for what a user asks for: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        InputError: a GPU where torch sees none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError(f"--device: expected cpu or auto here, got cuda: {why_no_gpu()}")
    return choose_device() if name == "auto" else name


def anywhere(
    address: str | None,
    say: Callable[[str], None],
    function: Callable[..., Result],
    arguments: Mapping[str, Any],
) -> Result:
    """Return ``function(**arguments)``, of a module, run here or with a trial's share of a cluster.

    Args:
        address: of a running Ray cluster; None is here, without Ray.
        say: is told while no node takes it.
        function: takes ``device=`` and ``threads=`` too, of which it has its own defaults.
        arguments: that can be pickled.

    Raises:
        InputError: no such cluster, or what the function refuses.
    """
    if address is None:
        return function(**arguments)
    from launch.cluster.elsewhere import on_worker  # imports ray

    found: Result = on_worker(address, Resources(), _called, function, arguments, say=say)
    return found


def _called(
    function: Callable[..., Result],
    arguments: Mapping[str, Any],
    *,
    device: str,
    threads: int,
    say: Callable[[str], None],
) -> Result:
    return function(**arguments, device=device, threads=threads)
