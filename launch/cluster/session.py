"""A Ray to run on: a cluster that is there, or one started here and stopped again.

Whatever would make Ray wait for ever or for minutes is refused first, in one line.
"""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import launch.cluster.environment  # isort: skip  # noqa: F401  before ray
import ray
from ray.job_config import JobConfig

from launch.cluster.causes import other_versions
from launch.cluster.nodes import Say
from launch.cluster.noise import tell_in_lines
from launch.config import modules
from launch.config.sections import Resources
from nas.errors import InputError, first_line, said

CLUSTER_FILE = Path("ray", "ray_current_cluster")  # where `ray start` leaves the head's address


class _OwnPath(JobConfig):  # type: ignore[misc]  # ray is half typed
    """Keeps Ray from putting the current directory first on the path of its workers.

    There a user's ``random.py`` would be found before Python's. A job whose files travel is the one
    case in which Ray leaves it out; where Ray asks otherwise, ``follow`` puts it last again.
    """

    def _runtime_env_has_working_dir(self) -> bool:
        return True


@contextmanager
def ray_session(address: str | None, say: Say = lambda line: None) -> Iterator[None]:
    """Connect to a cluster, or start Ray here and stop only what was started.

    Args:
        address: ``auto`` or ``HOST:PORT`` of a running cluster; None starts Ray on this machine.
        say: is told in a line what Ray says of the cluster.

    Raises:
        InputError: no such cluster.
    """
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    settings["job_config"] = _OwnPath()
    if address is None:
        settings["include_dashboard"] = False
    else:
        address = _reachable(address)
        # Workers find modules where this process does; those of a Ray started here inherit these.
        names = ("PYTHONPATH", modules.VARIABLE)
        found = {name: os.environ[name] for name in names if os.environ.get(name)}
        settings["runtime_env"] = {"env_vars": found}
    tell_in_lines(say)
    for name in ("ray", "ray.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # ray's notice on GPU variables
        try:
            ray.init(address=address or "local", **settings)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            why = other_versions(error) or first_line(error) or type(error).__name__
            if address is not None and "token" in said(error.__cause__ or error).lower():
                why += (
                    ": it asks for a token, that of ~/.ray/auth_token on its head, or of "
                    "RAY_AUTH_TOKEN"
                )
            raise InputError(
                f"Ray cannot start on this machine: {why}"
                if address is None
                else f"--address: expected a running Ray cluster, got {address!r}: {why}"
            ) from error
    try:
        yield
    finally:
        ray.shutdown()


def waiting(resources: Resources, address: str | None) -> Resources:
    """Return the resources of a trial; on this machine alone no other node is waited for."""
    return resources if address else resources.model_copy(update={"wait_seconds": 0.0})


def _reachable(address: str) -> str:
    """Return HOST:PORT where something listens: at any other, ray would wait for minutes."""
    expected = "--address: expected auto or HOST:PORT of a running Ray cluster"
    place = address
    if address == "auto":
        place = os.environ.get("RAY_ADDRESS", "")
        for directory in _temporary():
            if not place and (directory / CLUSTER_FILE).exists():
                place = (directory / CLUSTER_FILE).read_text(encoding="utf-8").strip()
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


def _temporary() -> list[Path]:
    """Return where `ray start` may have left its files: of this shell's settings, then of none."""
    named = (os.environ.get("RAY_TMPDIR"), os.environ.get("TMPDIR"))
    return [*(Path(name) for name in named if name), Path("/tmp"), Path(tempfile.gettempdir())]
