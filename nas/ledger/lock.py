"""One driver a run: a lock that dies with its process, and beside it who holds it."""

from __future__ import annotations

import os
import socket
import warnings
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from nas.errors import InputError, first_line

LOCK, OWNER = "driver.lock", "driver.pid"


class RunLock:
    """Holds a run directory for one driver; the system gives it back when the process dies.

    Args:
        directory: of the run.
        beside: what is done is no search: the trace of a driver that was killed stays for the next.

    Attributes:
        died: the driver before left without giving it back: it was killed.

    Raises:
        InputError: another process holds it, whose pid and host the message names, or the file
            system has no locks.
    """

    def __init__(self, directory: Path, *, beside: bool = False) -> None:
        self._directory, self._owner = directory, directory / OWNER
        self._lock = FileLock(directory / LOCK, timeout=0)
        self.died = False
        self._beside, self._before = beside, ""

    def __enter__(self) -> RunLock:
        try:
            with warnings.catch_warnings():
                # filelock may make a file its lock where the system has none: that outlives a kill
                warnings.simplefilter("error", UserWarning)
                self._lock.acquire()
        except Timeout as error:
            if not self._can_lock():
                raise self._no_locks("none") from error
            raise InputError(
                f"{self._directory} is being searched by another driver ({self._holder()}): "
                "expected one driver a run; wait for it, stop it, or give another --out"
            ) from error
        except (OSError, NotImplementedError, UserWarning) as error:
            raise self._no_locks(first_line(error)) from error
        self.died = self._owner.exists()
        self._before = self._owner.read_text(encoding="utf-8") if self.died else ""
        self._owner.write_text(f"pid {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._beside and self.died:
                self._owner.write_text(self._before, encoding="utf-8")
            else:
                self._owner.unlink(missing_ok=True)
        except OSError:  # a file system that has become read-only: the next driver thinks we died
            pass
        finally:
            self._lock.release()

    def _can_lock(self) -> bool:
        """Whether a file of our own can be locked: older filelocks hide why one cannot."""
        probe = self._directory / f".lock-{os.getpid()}"
        try:
            with FileLock(probe, timeout=0):
                return True
        except (OSError, NotImplementedError):  # Timeout is an OSError
            return False
        finally:
            probe.unlink(missing_ok=True)

    def _no_locks(self, got: str) -> InputError:
        return InputError(
            f"{self._directory}: expected a file system that can lock a file, got {got}: "
            "give another --out"
        )

    def _holder(self) -> str:
        try:
            return self._owner.read_text(encoding="utf-8").strip() or "unknown"
        except OSError:
            return "unknown"
