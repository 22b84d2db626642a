"""Whether the driver of a run lives, as one sees it who only looks.

Trying its lock would tell, but would refuse a driver that starts at that moment. So it is told by
the process that ``driver.pid`` names, on that process's machine; elsewhere nobody knows.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from nas.ledger.lock import OWNER


@dataclass(frozen=True)
class Holder:
    """The driver that holds a run directory, or that was killed while it did."""

    pid: int
    host: str

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host}"

    @classmethod
    def me(cls) -> Holder:
        """Return this process."""
        return cls(os.getpid(), socket.gethostname())


def holder(run: Path) -> Holder | None:
    """Return the driver of a run; None where the last one ended in order, or there was none."""
    try:
        text = (run / OWNER).read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.fullmatch(r"pid (\d+) on (\S+)\s*", text)
    return None if found is None else Holder(int(found[1]), found[2])


def lives(driver: Holder) -> bool | None:
    """Whether a process is there; None where that cannot be seen: it is another machine's."""
    if driver.host != socket.gethostname() or sys.platform == "win32":  # where signal 0 ends it
        return None
    try:
        os.kill(driver.pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return not _is_zombie(driver.pid)


def _is_zombie(pid: int) -> bool:
    """Whether a process has ended, and only waits for its parent to ask how."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:  # no Linux
        return False
    return text.rpartition(")")[2].split()[:1] == ["Z"]
