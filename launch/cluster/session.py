"""A Ray to run on: a cluster that is there, or one started here and stopped again.

Whatever would make Ray wait for ever or for minutes is refused first, in one line.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import launch.cluster.environment  # isort: skip  # noqa: F401  before ray
import ray

from launch.config.sections import Resources
from nas.errors import InputError, first_line

Result = TypeVar("Result")

CLUSTER_FILE = "/tmp/ray/ray_current_cluster"  # where `ray start` leaves the head's address


@dataclass(frozen=True)
class Slots:
    """How trials fit on the cluster: how many at a time, and what each takes."""

    count: int
    cpu: int
    gpu: float


@contextmanager
def ray_session(address: str | None) -> Iterator[None]:
    """Connect to a cluster, or start Ray here and stop only what was started.

    Args:
        address: ``auto`` or ``HOST:PORT`` of a running cluster; None starts Ray on this machine.

    Raises:
        InputError: no such cluster.
    """
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    # Workers find modules beside the configuration, as this process does.
    path = os.pathsep.join(p for p in (os.getcwd(), os.environ.get("PYTHONPATH", "")) if p)
    if address is None:
        os.environ["PYTHONPATH"] = path
        settings["include_dashboard"] = False
    else:
        address = _reachable(address)
        settings["runtime_env"] = {"env_vars": {"PYTHONPATH": path}}
    for name in ("ray", "ray.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # ray's notice on GPU variables
        try:
            ray.init(address=address or "local", **settings)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(
                f"--address: expected a running Ray cluster, got {address!r}: {first_line(error)}"
            ) from error
    try:
        yield
    finally:
        ray.shutdown()


def nodes() -> list[dict[str, float]]:
    """Return the resources of every living node."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def addresses() -> dict[str, str]:
    """Return the address of every living node, by its id."""
    return {n["NodeID"]: n["NodeManagerAddress"] for n in ray.nodes() if n["Alive"]}


def fit(resources: Resources, nodes: Sequence[Mapping[str, float]]) -> Slots:
    """Return how many trials fit, refusing what would wait for ever.

    Raises:
        InputError: a trial wants more than any one node has.
    """
    most_cpus = int(max(node.get("CPU", 0) for node in nodes))
    most_gpus = max(node.get("GPU", 0.0) for node in nodes)
    if resources.gpu == "auto":
        gpu = 1 / resources.trials_per_gpu if most_gpus else 0.0
    else:
        gpu = float(resources.gpu)
    if gpu > most_gpus:
        raise InputError(
            f"resources.gpu: expected at most the {most_gpus:g} GPUs of a node that Ray sees, "
            f"got {gpu:g}"
        )
    if resources.cpu > most_cpus:
        raise InputError(
            f"resources.cpu: expected at most the {most_cpus} cores of a node that Ray sees, "
            f"got {resources.cpu}"
        )
    count = 0
    for node in nodes:
        room = int(node.get("CPU", 0)) // resources.cpu
        count += min(room, math.floor(node.get("GPU", 0.0) / gpu + 1e-9)) if gpu else room
    if resources.workers is not None:
        count = min(count, resources.workers)
    return Slots(max(count, 1), resources.cpu, gpu)


def on_worker(
    address: str | None, resources: Resources, function: Callable[..., Result], *arguments: Any
) -> Result:
    """Return ``function(*arguments, device=, threads=)``, run on a worker with a trial's share.

    Args:
        address: as of :func:`ray_session`.
        resources: of a trial.
        function: a module's, with arguments that can be pickled.

    Raises:
        InputError: no such cluster, or one that cannot meet ``resources``.
    """
    with ray_session(address):
        slots = fit(resources, nodes())
        device = "cuda" if slots.gpu else "cpu"
        task: Any = ray.remote(num_cpus=slots.cpu, num_gpus=slots.gpu)(function)
        found: Result = ray.get(task.remote(*arguments, device=device, threads=slots.cpu))
    return found


def _reachable(address: str) -> str:
    """Return HOST:PORT where something listens: at any other, ray would wait for minutes."""
    expected = "--address: expected auto or HOST:PORT of a running Ray cluster"
    place = address
    if address == "auto":
        place = os.environ.get("RAY_ADDRESS", "")
        if not place and os.path.exists(CLUSTER_FILE):
            with open(CLUSTER_FILE) as file:
                place = file.read().strip()
        if not place:
            raise InputError(f"{expected}, got 'auto', and none was started on this machine")
    host, colon, port = place.rpartition(":")
    if not (colon and port.isdigit()) or "//" in host:
        raise InputError(f"{expected}, got {place!r}")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"{expected}, got {place!r}: {error}") from error
    return place
