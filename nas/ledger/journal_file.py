"""A journal that several drivers write, on a disk that they share: ``journal:///PATH``."""

from __future__ import annotations

import os
from typing import Any

from filelock import FileLock
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

LOCK_SECONDS = 60  # a line takes milliseconds; whoever holds the lock longer is stuck


class _HeldOutside(JournalFileOpenLock):
    """Optuna's own lock outlives a killed process; ours goes with it."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        return None


class SharedLines(JournalFileBackend):
    """A journal whose every write is there whole or not at all, whoever else writes.

    A writer that was killed leaves half a line: whoever writes next takes it away.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path, lock_obj=_HeldOutside(path))
        self._turn = FileLock(f"{path}.lock", timeout=LOCK_SECONDS)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        with self._turn:
            size = _whole_size(self._file_path)
            os.truncate(self._file_path, size)
            try:
                super().append_logs(logs)
            except BaseException:
                os.truncate(self._file_path, size)
                raise


def _whole_size(path: str) -> int:
    """Return the bytes up to the end of the last whole line."""
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            begin = max(0, end - 65536)
            file.seek(begin)
            found = file.read(end - begin).rfind(b"\n")
            if found >= 0:
                return begin + found + 1
            end = begin
    return 0
