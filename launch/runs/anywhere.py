"""Work on a finished model here, or on a worker of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from launch.config.sections import Resources

Result = TypeVar("Result")


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
