"""What became of each reproduction: done or failed and why, in how many seconds, on what."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from launch.config.versions import versions
from nas.files import write_whole

FILE = "reproduction.json"
DONE, FAILED = "done", "failed"


@dataclass(frozen=True)
class Outcome:
    """What became of one reproduction.

    Attributes:
        state: ``done`` or ``failed``.
        reason: why it failed, one line; "" of one that is done.
        seconds: that its calls took in all, searches among them where they were not there.
        quick: in small.
        key: of its settings.
        ended: when, seconds since 1970.
        versions, machine: what it was made with.
    """

    state: str
    reason: str = ""
    seconds: float = 0.0
    quick: bool = True
    key: str = ""
    ended: float = 0.0
    versions: Mapping[str, Any] = field(default_factory=dict)
    machine: str = ""


def outcome(state: str, reason: str, *, seconds: float, quick: bool, key: str) -> Outcome:
    """Return an outcome of now, on this machine."""
    return Outcome(state, reason, seconds, quick, key, time.time(), versions(), machine())


def machine() -> str:
    """Return what this machine is, in words."""
    import torch

    cores = os.cpu_count() or 1
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{platform.system()} {platform.machine()}, {cores} cores{gpu}"


def read_outcomes(base: Path) -> dict[str, Outcome]:
    """Return what is known of the reproductions in a directory of runs, by name.

    What cannot be read, or is of another version, is not known.
    """
    try:
        found = json.loads((base / FILE).read_text(encoding="utf-8"))
        known = {f.name for f in fields(Outcome)}
        return {
            str(name): Outcome(**{k: v for k, v in own.items() if k in known})
            for name, own in found.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def write_outcome(base: Path, name: str, found: Outcome) -> None:
    """Write what became of a reproduction, beside what became of the others."""
    every = {**read_outcomes(base), name: found}
    text = json.dumps({n: asdict(o) for n, o in every.items()}, indent=1) + "\n"
    base.mkdir(parents=True, exist_ok=True)
    write_whole(base / FILE, lambda partial: partial.write_text(text, encoding="utf-8"))
