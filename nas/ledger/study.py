"""The ledger: the Optuna study of a run, on an append-only journal, with one writer at a time.

What a kill at any moment leaves behind is read again: a last line that was cut short is put aside
(:func:`repair_journal`), a lock of a dead process is not waited for, and :class:`RunLock` lets only
one driver write. Every finished trial carries one JSON attribute, ``RESULT``, with all that is
known of it; the Optuna values and state are for the sampler.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import Study
from sqlalchemy.exc import SQLAlchemyError

from nas.errors import InputError, NoStudy

Direction = Literal["minimize", "maximize"]

JOURNAL = "study.journal"
LOCK = "driver.lock"

STUDY = "psinas"
"""The name of the study in a run directory's own journal."""

RESULT = "psinas"
"""The attribute of a finished trial: status, reason, scores, architecture, cost, versions."""


class RunLock:
    """Holds a run directory for one driver; the kernel gives it back when the process dies.

    Raises:
        InputError: another process holds it; the message names its pid and host.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOCK
        self._file: Any = None

    def __enter__(self) -> RunLock:
        self._file = self._path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.seek(0)
            owner = self._file.read().strip() or "unknown"
            self._file.close()
            raise InputError(
                f"{self._path.parent} is being searched by another driver ({owner}): expected one "
                "driver a run; wait for it, stop it, or give another --out"
            ) from error
        self._file.truncate(0)
        self._file.write(f"pid {os.getpid()} on {socket.gethostname()}")
        self._file.flush()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.truncate(0)
        self._file.close()


class _NoLock(JournalFileOpenLock):
    """Optuna's own lock outlives a killed process; :class:`RunLock` does its work."""

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


def open_study(
    run: Path | str,
    *,
    directions: Sequence[Direction] | None = None,
    storage: str | BaseStorage | None = None,
    name: str = STUDY,
) -> Study:
    """Return the study of a run; without ``directions`` it must be there.

    Args:
        run: the run directory.
        directions: ``maximize`` or ``minimize`` for each objective, to begin or go on.
        storage: of Optuna's, or its URL; None is ``study.journal`` in the run directory.
        name: of the study in the storage.

    Raises:
        NoStudy: there is none.
        InputError: the journal cannot be read.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    run = Path(run).resolve()
    journal = run / JOURNAL
    if storage is None and directions is None and not journal.exists():
        raise NoStudy(f"expected a run directory with a {JOURNAL}, got {run}")
    try:
        where: BaseStorage | str = storage or JournalStorage(
            _WholeLines(str(journal), lock_obj=_NoLock(str(journal)))
        )
        if directions is None:
            return optuna.load_study(study_name=name, storage=where)
        return optuna.create_study(
            study_name=name,
            storage=where,
            directions=list(directions),
            pruner=optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
    except KeyError as error:
        raise NoStudy(f"expected a study called {name!r} in {storage or journal}") from error
    except (ValueError, AssertionError, ImportError, SQLAlchemyError) as error:
        line = str(error).strip().partition("\n")[0]
        raise InputError(f"the ledger {storage or journal} cannot be opened: {line}") from error


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
