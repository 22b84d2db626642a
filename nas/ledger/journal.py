"""The ledger's file: an Optuna journal of one JSON object a line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from nas.errors import InputError


class _NoLock(JournalFileOpenLock):
    """Optuna's own lock outlives a killed process; ``nas.ledger.lock`` does its work."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        return None


class _WholeLines(JournalFileBackend):
    """A journal whose every write is there whole or not at all: a full disk leaves no half line."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        size = os.path.getsize(self._file_path)
        try:
            super().append_logs(logs)
        except BaseException:
            os.truncate(self._file_path, size)
            raise


def repair_journal(journal: Path) -> str | None:
    """Put aside a last line that was cut short; return what was done, or None.

    A writer that is killed in the middle of a line leaves a tail that the next line would be glued
    to. The tail goes to ``study.journal.broken``.

    Raises:
        InputError: a line in the middle is broken: operations behind it depend on it.
    """
    if not journal.exists():
        return None
    content = journal.read_bytes()
    lines = content.splitlines(keepends=True)
    good = 0
    for number, line in enumerate(lines, start=1):
        if not (line.endswith(b"\n") and _is_json(line)):
            if number < len(lines):
                raise InputError(
                    f"{journal}: expected one JSON object a line, got a broken line {number} of "
                    f"{len(lines)}: restore the file from a copy"
                )
            break
        good += len(line)
    if good == len(content):
        return None
    with journal.with_suffix(".journal.broken").open("ab") as aside:
        aside.write(content[good:] + b"\n")
    with journal.open("r+b") as file:
        file.truncate(good)
        os.fsync(file.fileno())
    return f"the last line of {journal.name} was cut short: put aside {len(content) - good} bytes"


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
