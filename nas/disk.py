"""How much room files take and how much is left, and whether an error says that there was none."""

from __future__ import annotations

import errno
import math
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from nas.errors import said

FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
SAYS_FULL = re.compile(
    r"no space left on device|disk quota exceeded|database or disk is full|"
    rf"os error ({FULL[0]}|{FULL[1]})\b",  # what safetensors, written in Rust, says
    re.IGNORECASE,
)
UNITS = {"": 1, "B": 1}
UNITS |= {f"{unit}B": 1000**power for power, unit in enumerate("KMGTP", start=1)}
UNITS |= {f"{unit}IB": 1024**power for power, unit in enumerate("KMGTP", start=1)}
_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*$")


@dataclass(frozen=True)
class Use:
    """What a directory takes on disk, in bytes.

    Attributes:
        total: of all files and directories in it, itself included.
        weights: those of ``*.safetensors`` among them.
        whole: everything was seen; else there is more.
    """

    total: int
    weights: int
    whole: bool = True


def use_of(path: Path, *, seconds: float = math.inf) -> Use:
    """Return what a directory takes; zero where there is none.

    What vanishes meanwhile is not counted. Links are not followed.

    Args:
        path: of the directory.
        seconds: look no longer; a shared disk may answer slowly.
    """
    until = time.monotonic() + seconds
    total = weights = 0
    left = [path]
    while left:
        place = left.pop()
        try:
            total += _blocks(place.lstat())
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        left.append(Path(entry.path))
                        continue
                    size = _blocks(entry.stat(follow_symlinks=False))
                    total += size
                    weights += size if entry.name.endswith(".safetensors") else 0
        except (FileNotFoundError, NotADirectoryError):
            continue
        if left and time.monotonic() > until:
            return Use(total, weights, whole=False)
    return Use(total, weights)


def free_on(path: Path) -> int:
    """Return the bytes that are free to us where a path lies or will lie."""
    there = path.absolute()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free


def disk_is_full(error: BaseException | None) -> bool:
    """Whether an error, or what it came of, says that a file system or a quota has no room."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if getattr(error, "errno", None) in FULL or SAYS_FULL.search(said(error)):
            return True
        seen.append(error)
        error = error.__cause__ or error.__context__
    return False


def in_bytes(size: object) -> int:
    """Return the bytes in a number, or in text such as ``20 GB`` or ``1.5 GiB``.

    GB are 1000³ bytes and GiB are 1024³, as everywhere; capitals play no part.

    Raises:
        ValueError: it is none of these.
    """
    match = _SIZE.match(str(size)) if isinstance(size, str | int | float) else None
    if match is None or isinstance(size, bool) or match[2].upper() not in UNITS:
        raise ValueError(f"expected bytes, such as 20 GB or 512 MiB, got {size!r}")
    return round(float(match[1]) * UNITS[match[2].upper()])


def shown_size(size: int) -> str:
    """Return bytes as a person reads them: ``1.2 GB``, where GB are 1000³ bytes."""
    if size < 1000:
        return f"{size} B"
    power = 0
    value = float(size)
    while value >= 999.5 and power < 5:
        value, power = value / 1000, power + 1
    return f"{value:.3g} {'kMGTP'[power - 1]}B"


def _blocks(status: os.stat_result) -> int:
    """Return what a file takes, as ``du`` counts it; its length where the system does not say."""
    blocks: int | None = getattr(status, "st_blocks", None)
    return status.st_size if blocks is None else 512 * blocks
