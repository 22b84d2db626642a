"""Pieces of work on the workers of a cluster, where the GPUs are, and what they told of it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import chdir, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import launch.cluster.environment  # isort: skip  # noqa: F401  before ray
import ray
from ray import cloudpickle
from ray.exceptions import RayError, RayTaskError

from launch.cluster.demand import Demand
from launch.cluster.devices import check_device
from launch.cluster.nodes import Cluster, Say
from launch.cluster.session import ray_session, waiting
from launch.config.sections import Resources
from nas.data.places import ROOT_VARIABLE
from nas.errors import InputError, PsinasError, WorkerFailure, first_line

Result = TypeVar("Result")
Key = TypeVar("Key")


def on_worker(
    address: str | None,
    resources: Resources,
    function: Callable[..., Result],
    *arguments: Any,
    say: Say | None = None,
) -> Result:
    """Return ``function(*arguments, device=, threads=)``, run on a worker with a trial's share.

    It runs in the directory of this process, where the worker's node has that, and looks for
    datasets where this process does, unless the node has a place of its own.

    Args:
        address: as of :func:`launch.cluster.session.ray_session`.
        resources: of a trial.
        function: a module's, with arguments and a result that can be pickled.
        say: is told while it waits for a node; given, the function gets ``say=`` too, and what it
            says is told here when it ends.

    Raises:
        InputError: no such cluster, one that cannot meet ``resources``, or what the function
            refuses; the node is named.
        WorkerFailure: the worker died.
    """
    tell = say or (lambda line: None)
    with ray_session(address, tell):
        cluster = Cluster(waiting(resources, address), tell, ask=Demand())
        cluster.wait_for_room()
        slots = cluster.slots()
        device = "cuda" if slots.gpu and resources.device != "cpu" else "cpu"
        settings = {"device": device, "threads": slots.cpu}
        remote: Any = ray.remote(num_cpus=slots.cpu, num_gpus=slots.gpu, max_retries=0)(_told)
        places = os.getcwd(), os.environ.get(ROOT_VARIABLE)
        task = remote.remote(function, arguments, settings, places, say is not None)
        try:
            for kind, value in ray.get(task):
                if kind == "said":
                    tell(value)
                elif kind == "failed":
                    raise value
                else:
                    found: Result = cloudpickle.loads(value)  # Ray's own arrays are read-only
        except RayTaskError as error:
            raise error.cause from None
        except RayError as error:
            raise WorkerFailure(f"the worker died: {first_line(error)}") from None
    return found


def each_on_worker(
    address: str | None,
    resources: Resources,
    function: Callable[..., Result],
    keys: Iterable[Key],
    arguments: Callable[[Key], tuple[Any, ...]],
    *,
    at_once: int,
    say: Say = lambda line: None,
) -> Iterator[tuple[Key, Result | BaseException]]:
    """Yield ``function(*arguments(key), device=, threads=)`` of each key, as each ends.

    What fails is yielded as its error, and the others go on; a worker that dies is one failure.

    Args:
        address, resources, function: as in :func:`on_worker`.
        keys: of the pieces.
        arguments: returns those of a piece, when it is its turn.
        at_once: pieces that run or wait for a worker at a time.
        say: is told while no node takes any.

    Raises:
        InputError: no such cluster, or one that cannot meet ``resources``.
    """
    waits, running = list(keys)[::-1], dict[Any, Key]()
    with ray_session(address, say):
        cluster = Cluster(waiting(resources, address), say, ask=Demand())
        cluster.wait_for_room()
        slots = cluster.slots()
        device = "cuda" if slots.gpu and resources.device != "cpu" else "cpu"
        settings = {"device": device, "threads": slots.cpu}
        remote: Any = ray.remote(num_cpus=slots.cpu, num_gpus=slots.gpu, max_retries=0)(_told)
        places = os.getcwd(), os.environ.get(ROOT_VARIABLE)
        while waits or running:
            while waits and len(running) < at_once:
                key = waits.pop()
                task = remote.remote(function, arguments(key), settings, places, False)
                running[task] = key
            done, _ = ray.wait(list(running))
            for task in done:
                yield running.pop(task), _outcome(task)


def _outcome(task: Any) -> Any:
    """Return what a piece returned, or its error."""
    try:
        kind, value = ray.get(task)[-1]
        return cloudpickle.loads(value) if kind == "returned" else value
    except RayTaskError as error:
        return error.cause
    except RayError as error:
        return WorkerFailure(f"the worker died: {first_line(error)}")


def _told(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    settings: dict[str, Any],
    places: tuple[str, str | None],
    tells: bool,
) -> list[tuple[str, Any]]:
    """Return what a function said, then what it returned or refused.

    Not as a stream: a worker that shows no token cannot call a driver that has one, and a stream's
    driver would wait for ever.
    """
    told: list[tuple[str, Any]] = []
    if tells:
        settings = {**settings, "say": lambda line: told.append(("said", line))}
    try:
        check_device(settings["device"])
        with _as_the_driver(*places):
            told.append(("returned", cloudpickle.dumps(function(*arguments, **settings))))
    except InputError as error:
        told.append(("failed", InputError(f"{error} (on node {socket.gethostname()})")))
    except PsinasError as error:
        told.append(("failed", error))
    return told


@contextmanager
def _as_the_driver(directory: str, root: str | None) -> Iterator[None]:
    """Work where the driver does; a worker's process does other work afterwards."""
    had = os.environ.get(ROOT_VARIABLE)
    if had is None and root is not None and Path(root).is_dir():
        os.environ[ROOT_VARIABLE] = root
    try:
        with chdir(directory) if Path(directory).is_dir() else nullcontext():
            yield
    finally:
        if had is None:
            os.environ.pop(ROOT_VARIABLE, None)
