"""The ledger's file: an Optuna journal of one JSON object a line, written by one process.

Optuna writes and syncs a line for every answer of a trial, 38 for 35 decisions. Here lines are held
back until they say something that must not be lost; a new trial, its answers and its place are one;
any version of Optuna reads the file.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from nas.errors import InputError
from nas.ledger.operations import Op
from nas.ledger.results import PLACE

ID, TAKEN = " id", " taken"
"""What :mod:`nas.ledger.journal_storage` notes on a line that it has read: never in the file."""

Line = dict[str, Any]


class Journal(BaseJournalBackend):
    """A journal for one storage, whose every write is there whole or not at all.

    Optuna's own lock is not taken: it outlives a killed process. ``nas.ledger.lock`` does its work.

    Args:
        path: of the file, made if it is not there.
        make: touch it; False for whoever only reads.

    Raises:
        InputError: another process wrote while lines were held back, or has cut the file.
    """

    def __init__(self, path: Path, *, make: bool = True) -> None:
        self._path = path
        if make:
            path.open("ab").close()
        self._end = 0  # of what was read or written here
        self._unread: deque[Line] = deque()
        self._held: list[Line] = []
        self._holding = 0

    def read_logs(self, log_number_from: int) -> Iterator[Line]:
        """Yield the lines that the storage has not had."""
        while self._unread:
            yield self._unread.popleft()
        if not self._held:
            yield from self._others()

    def append_logs(self, logs: list[Line]) -> None:
        """Write lines and wait for the disk, or hold them back inside :meth:`together`."""
        lines: list[Line] = [json.loads(json.dumps(log)) for log in logs]
        if not self._held:
            self._unread.extend(self._others())
        self._held += lines
        if not self._holding:
            try:
                self._write()
            except BaseException:
                del self._held[-len(lines) :]
                raise
        self._unread.extend(lines)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write what is appended inside at the end, at once.

        What cannot be written, since the disk is full, goes with the next line.
        """
        self._holding += 1
        try:
            yield
        finally:
            self._holding -= 1
            if self._held and not self._holding:
                self._write()

    def _write(self) -> None:
        text = "".join(
            json.dumps(line, separators=(",", ":")) + "\n" for line in _folded(self._held)
        )
        if (size := self._path.stat().st_size) != self._end:
            raise InputError(
                f"{self._path}: expected {self._end} bytes, got {size}: another process has "
                "written to it; expected one driver a run"
            )
        try:
            with self._path.open("ab") as file:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            os.truncate(self._path, self._end)
            raise
        self._end += len(text)  # JSON of json.dumps is ASCII
        self._held.clear()

    def _others(self) -> Iterator[Line]:
        """Yield whole lines behind what is known: the file's first, or another process's."""
        if self._path.stat().st_size == self._end:
            return
        with self._path.open("rb") as file:
            file.seek(self._end)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # being written, or cut short: see repair_journal
                try:
                    read: Line = json.loads(line)
                except ValueError as error:
                    raise InputError(
                        f"{self._path}: expected one JSON object a line, got a broken line at byte "
                        f"{self._end}: restore the file from a copy"
                    ) from error
                self._end += len(line)
                yield read


def _folded(lines: Iterable[Line]) -> list[Line]:
    """Return the lines with each new trial's answers and place in the line that creates it."""
    folded: list[Line] = []
    created: dict[int, Line] = {}
    for line in lines:
        plain = {name: value for name, value in line.items() if name not in (ID, TAKEN)}
        op, trial = line["op_code"], line.get("trial_id")
        if op == Op.SET_PARAM and TAKEN in line and trial in created:
            name = line["param_name"]
            created[trial].setdefault("distributions", {})[name] = _short(line["distribution"])
            created[trial].setdefault("params", {})[name] = line["param_value_internal"]
            continue
        if op == Op.SET_USER_ATTR and PLACE in line["user_attr"] and trial in created:
            before = created[trial].get("user_attrs", {})
            created[trial]["user_attrs"] = {**before, **line["user_attr"]}
            continue
        if op == Op.CREATE_TRIAL and ID in line:
            created[line[ID]] = plain
        folded.append(plain)
    return folded


@lru_cache(maxsize=4096)
def _short(distribution: str) -> str:
    """Return choices in the shorter of the two forms that Optuna reads."""
    described = json.loads(distribution)
    if described.get("name") != "CategoricalDistribution":
        return distribution
    choices = described["attributes"]["choices"]
    return json.dumps({"type": "categorical", "choices": choices}, separators=(",", ":"))


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
        last = number == len(lines)
        if not (line.endswith(b"\n") and (_is_json(line) if last else _looks_whole(line))):
            if not last:
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


def _looks_whole(line: bytes) -> bool:
    """Whether a line has both ends of an object; what is between them is seen when it is read."""
    return line.startswith(b"{") and line.endswith(b"}\n")


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
