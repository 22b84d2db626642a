"""What a process runs: versions of psinas and of the libraries that decide its numbers."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

LIBRARIES = ("psinas", "torch", "torchvision", "ray", "optuna", "numpy")
PACKAGES = ("search_spaces", "metrics", "nas", "launch")
HOME = Path(__file__).resolve().parents[2]


def versions() -> dict[str, Any]:
    """Return the versions that a run is made with, and the commit of a psinas checkout.

    None for what is run without being installed: a checkout on the path, say. Nothing is imported.
    """
    found: dict[str, Any] = {name: _version(name) for name in LIBRARIES}
    if (HOME / ".git").exists():
        found["commit"] = _commit(HOME)
    return found


def process_versions() -> dict[str, str | None]:
    """Return :func:`versions`, Python's own, and a checksum of the sources of psinas.

    Two processes with one checksum run the same code, whatever their version and commit say.
    """
    found = versions()
    return {**found, "python": platform.python_version(), "sources": _sources(HOME)}


def _sources(home: Path) -> str:
    """Return 12 hex digits of what the Python files of psinas hold."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((home / package).rglob("*.py")):
            digest.update(path.relative_to(home).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _commit(source: Path) -> str | None:
    """Return the commit of a checkout; None where git is not installed or does not answer."""
    command = ["git", "-C", str(source), "rev-parse", "HEAD"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, errors="replace")
    except OSError:
        return None
    return answer.stdout.strip() or None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
