"""Code that somebody else's run names is not run before the user has said yes, once.

A run directory names classes by module (``space: {name: "sp:Space"}``), and looking into it would
import them. A search that a user starts is a yes: what it names is remembered in a file of this
user on this machine, a line a name with the file that it came from. Of a run directory or an export
whose code is not there, which somebody else made or which comes from elsewhere, the user is asked.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launch.config.modules import code_in, directories, file_of, look_in
from nas.errors import InputError

OPTION, VARIABLE = "--trust-code", "PSINAS_TRUST"


def trusted_file() -> Path:
    """Return the file that remembers: ``$XDG_CONFIG_HOME/psinas/trusted``, a text to be edited."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(home, "psinas", "trusted")


def admit(document: Mapping[str, Any], what: str | os.PathLike[str]) -> None:
    """Look for modules where a saved configuration or description says, if its code may run.

    Args:
        document: with the directories of its modules as ``modules``.
        what: the run or the export, for the message.

    Raises:
        InputError: it names code that this user has neither searched with nor trusted.
    """
    look_in(directories(document))
    known = _known()
    new = {name: file for name, file in _files(document).items() if _line(name, file) not in known}
    if not new:
        return
    if os.environ.get(VARIABLE, "") in ("", "0"):
        named = ", ".join(f"{name} in {file}" for name, file in new.items())
        raise InputError(
            f"{what} names code that you have not searched with on this machine: {named}; "
            f"{OPTION} or {VARIABLE}=1 runs it, and remembers it"
        )
    remember(document)


def remember(document: Mapping[str, Any]) -> None:
    """Remember that this user runs what a configuration names."""
    lines = [_line(name, file) for name, file in _files(document).items()]
    if missing := [line for line in lines if line not in _known()]:
        path = trusted_file()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8", errors="surrogateescape") as file:
                file.write("".join(f"{line}\n" for line in missing))
        except OSError:  # a home that cannot be written: the user is asked, and that line says why
            return


def _files(document: Mapping[str, Any]) -> dict[str, str]:
    found = {name: file_of(name) for name in code_in(document)}
    return {name: os.path.realpath(file) for name, file in found.items() if file is not None}


def _line(name: str, file: str) -> str:
    return f"{name}\t{file}"


def _known() -> set[str]:
    try:
        text = trusted_file().read_text(encoding="utf-8", errors="surrogateescape")
        return set(text.splitlines())
    except OSError:
        return set()
