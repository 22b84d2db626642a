"""What one node finds when it is asked whether trials can run there; the driver answers it too.

:func:`answer` is what :mod:`launch.cluster.probe` runs on a node. It takes and returns plain JSON
types, so that two versions of psinas understand each other, and imports torch only to look at GPUs,
in a process of its own: neither memory on the device nor a driver that hangs outlives the question.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pkgutil
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import launch.cluster.environment  # noqa: F401  where modules of a user's are looked for
from launch.config.versions import process_versions
from nas.data.config import DataConfig
from nas.errors import InputError, first_line, one_line

WRITTEN_BYTES = 1 << 16  # what a node writes: enough that a used-up quota is noticed
ASKING_SECONDS = 120.0  # torch, for its GPUs
DRIVER = "driver"  # the driver's own file in the directory of tokens
STORAGE = {
    errno.EROFS: "read-only",
    errno.ENOSPC: "full",
    errno.EDQUOT: "quota",
}
_LOOK_AT_GPUS = (
    "import json; from nas.device import usable_gpus, why_no_gpu; "
    "print(json.dumps([*usable_gpus(), why_no_gpu()]))"
)


@dataclass(frozen=True)
class Questions:
    """What a node is asked.

    Attributes:
        run: the directory that every node should share and write; None asks nothing of storage.
        data: datasets to read, by ``DataConfig.source``.
        modules: names ``pkg.module:Thing`` to import.
        gpus: whether torch is asked for its GPUs; None asks where Ray counts some.
    """

    run: str | None = None
    data: tuple[tuple[str, str | None, int | None], ...] = ()
    modules: tuple[str, ...] = ()
    gpus: bool | None = None


@dataclass(frozen=True)
class NodeReport:
    """What a node answered.

    Attributes:
        node: Ray's id of it; empty of the driver's process.
        host: its name, for people.
        address: its IP address.
        cpus, gpus: that Ray counts there.
        cores: that a process there may use.
        torch_gpus: names of the GPUs that torch can use; None where torch was not asked.
        gpu_memory_bytes: of each of them.
        cuda_error: why torch can use none.
        versions: of psinas, its libraries and Python, by name; ``sources`` is a checksum of ours.
        storage: of the run directory: ``shared``, ``absent``, ``other`` (a directory of the same
            name), ``unseen`` (the driver does not see what the node wrote), ``read-only``,
            ``full``, ``quota``, ``unreadable``, ``unwritable``; empty where it was not asked.
        storage_error: what the system said.
        run_free_bytes, temporary_free_bytes: free where the run and where Ray's files lie.
        data: dataset -> why it cannot be read there; empty where it can.
        modules: name -> why it cannot be imported there; empty where it can.
        module_checksums: name -> checksum of the file that it comes from.
        clock_offset_seconds: by how much its clock is ahead of the driver's.
        clock_error_seconds: half of the round trip in which that was measured.
        silent: why there is no answer.
        unready: why psinas cannot be imported there.
    """

    node: str = ""
    host: str = ""
    address: str = ""
    cpus: float = 0.0
    gpus: float = 0.0
    cores: int = 0
    torch_gpus: tuple[str, ...] | None = None
    gpu_memory_bytes: tuple[int, ...] = ()
    cuda_error: str = ""
    versions: Mapping[str, str | None] = field(default_factory=dict)
    storage: str = ""
    storage_error: str = ""
    run_free_bytes: int | None = None
    temporary_free_bytes: int | None = None
    data: Mapping[str, str] = field(default_factory=dict)
    modules: Mapping[str, str] = field(default_factory=dict)
    module_checksums: Mapping[str, str] = field(default_factory=dict)
    clock_offset_seconds: float | None = None
    clock_error_seconds: float | None = None
    silent: str = ""
    unready: str = ""

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> NodeReport:
        """Return the report of what :func:`answer` gave, on whatever version of psinas."""
        known = {f.name for f in fields(cls)}
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in document.items()
            if name in known
        }
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)


def answer(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what this process finds, as the fields of a :class:`NodeReport`.

    Args:
        document: the fields of :class:`Questions`, with ``gpus`` settled; ``tokens`` is the
            directory in which the driver has left its token, ``token`` what that says, and ``node``
            the name of this node's own file there.
    """
    found: dict[str, Any] = {
        "host": socket.gethostname(),
        "cores": usable_cores(),
        "versions": process_versions(),
        "temporary_free_bytes": free_bytes(ray_directory()),
        "data": {name: why for name, *rest in document["data"] if (why := _unread(name, *rest))},
    }
    if document["run"] is not None:
        found["run_free_bytes"] = free_bytes(Path(document["run"]))
    if document.get("tokens") is not None:
        state, why, said = exchange(Path(document["tokens"]), document["token"], document["node"])
        found |= {"storage": state, "storage_error": why, "said": said}
    if document["gpus"]:
        found |= gpus_apart()
    reasons, found["module_checksums"] = {}, {}
    for name in document["modules"]:
        try:
            pkgutil.resolve_name(name)
        except Exception as error:  # noqa: BLE001  a module of anybody's
            reasons[name] = one_line(error)
        else:
            found["module_checksums"][name] = _checksum(name)
    return {**found, "modules": reasons}


def exchange(tokens: Path, expected: str, mine: str) -> tuple[str, str, str]:
    """Read the driver's token and leave one of this node's.

    Args:
        tokens: the directory in which both lie.
        expected: what the driver has written.
        mine: the name of this node's file.

    Returns:
        State of the storage, what the system said, and what was written: ``shared`` holds once the
        driver has read that.
    """
    if not tokens.parent.is_dir():
        return "absent", "", ""
    try:
        if read_token(tokens / DRIVER) != expected:
            return "other", "", ""
    except FileNotFoundError:
        return "other", "", ""
    except OSError as error:
        return "unreadable", first_line(error), ""
    said = secrets.token_hex(8)
    try:
        leave(tokens / mine, said)
    except OSError as error:
        return STORAGE.get(error.errno or 0, "unwritable"), first_line(error), ""
    return "shared", "", said


def leave(path: Path, text: str) -> None:
    """Write a token as others see it, and room behind it that a quota counts.

    Raises:
        OSError: no room, no right, no such directory.
    """
    with path.open("w", encoding="utf-8") as file:
        file.write(f"{text}\n" + " " * WRITTEN_BYTES)
        file.flush()
        os.fsync(file.fileno())


def read_token(path: Path) -> str:
    """Return what :func:`leave` wrote."""
    return path.read_text(encoding="utf-8").partition("\n")[0]


def gpus_apart() -> dict[str, Any]:
    """Return which GPUs torch can use here, their memory and why none, of a process of its own."""
    command = [sys.executable, "-P", "-c", _LOOK_AT_GPUS]
    path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        asked = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=ASKING_SECONDS,
            env=os.environ | path,
        )
        names, sizes, why = json.loads(asked.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, OSError) as error:
        names, sizes, why = [], [], one_line(error)
    except (ValueError, IndexError):
        last = asked.stderr.strip().splitlines()[-1:] or [f"exit code {asked.returncode}"]
        names, sizes, why = [], [], f"torch gave no answer: {last[0]}"
    return {"torch_gpus": names, "gpu_memory_bytes": sizes, "cuda_error": why}


def gpus_here() -> dict[str, Any]:
    """Return the same of this process, where torch is needed anyway."""
    from nas.device import usable_gpus, why_no_gpu  # slow: torch

    names, sizes = usable_gpus()
    return {"torch_gpus": names, "gpu_memory_bytes": sizes, "cuda_error": why_no_gpu()}


def usable_cores() -> int:
    """Return how many cores this process may use: by affinity, and by its control group."""
    try:
        cores = float(len(os.sched_getaffinity(0)))
    except AttributeError:  # not on Linux
        cores = float(os.cpu_count() or 1)
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        cores = min(cores, float(quota) / float(period))
    except (OSError, ValueError):  # no control group, or one with quota "max"
        pass
    return max(1, int(cores))


def free_bytes(directory: Path) -> int | None:
    """Return what is free where a directory lies or will lie; None where nobody can say."""
    there = next((p for p in (directory, *directory.parents) if p.is_dir()), directory)
    try:
        return shutil.disk_usage(there).free
    except OSError:
        return None


def ray_directory() -> Path:
    """Return where Ray keeps its files on this node."""
    node = getattr(sys.modules.get("ray._private.worker"), "_global_node", None)
    if node is not None:
        return Path(node.get_session_dir_path())
    return Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())


def _unread(name: str, root: str | None, image_size: int | None) -> str:
    """Return why a dataset cannot be read here; nothing where it can."""
    from nas.data.datasets import check_there  # slow: torch

    try:
        check_there(DataConfig(name=name, root=root, image_size=image_size))
    except InputError as error:
        return first_line(error)
    return ""


def _checksum(name: str) -> str:
    """Return 12 hex digits of the file from which ``pkg.module:Thing`` was imported."""
    file = getattr(sys.modules.get(name.partition(":")[0]), "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:12] if file else ""
