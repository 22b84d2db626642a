"""Where a user's own modules are looked for: after psinas and all that is installed.

They lie beside the configuration, else in the current directory, and a run's configuration
remembers where (``modules``). The directories stand at the end of ``sys.path``, and in an
environment variable, from which workers and other processes take them before they import anything
of a user's (:mod:`launch.cluster.environment`).
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from nas.errors import InputError

VARIABLE = "PSINAS_MODULES"
_added: list[str] = []  # to sys.path, by this process
_CODE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def look_in(directories: Iterable[str | os.PathLike[str]] = ()) -> None:
    """Look for modules in these directories, then in the current one, and in no earlier ones."""
    wanted = [*(os.path.abspath(d) for d in directories), os.getcwd()]
    _place(list(dict.fromkeys(wanted)))


def looked_in() -> list[str]:
    """Return the directories of a user's modules, in their order."""
    found: list[str] = json.loads(os.environ.get(VARIABLE, "[]"))
    return found


def follow() -> None:
    """Look for modules where the process does that started this one, and nowhere earlier.

    Ray may put the driver's current directory first on a worker's path.
    """
    directories = looked_in()
    sys.path[:] = [place for place in sys.path if place not in directories]
    _place(directories)


def directories(document: Mapping[str, Any]) -> list[str]:
    """Return the directories that a document records.

    Raises:
        InputError: they are no list of paths.
    """
    found = document.get("modules") or []
    if not isinstance(found, list) or not all(isinstance(place, str) for place in found):
        raise InputError(f"modules: expected a list of directories, got {found!r}")
    return found


def code_in(value: Any) -> list[str]:
    """Return the names ``pkg.module:Thing`` in a configuration, sorted, each once."""
    return sorted({text for text in _texts(value) if _CODE.fullmatch(text)})


def file_of(name: str) -> str | None:
    """Return the file that ``pkg.module:Thing`` would be imported from, as far as its package.

    Nothing is imported, and what was is not asked. None where there is no such module.
    """
    spec = _spec(_top(name))
    if spec is None:
        return None
    places = list(spec.submodule_search_locations or ())
    if spec.origin is None and not places:
        return spec.name
    return spec.origin or places[0]


def needed(document: Any, beside: Path) -> list[str]:
    """Return the directories that a configuration's modules are to be found in later on.

    Args:
        document: the configuration.
        beside: the directory of its file.

    Returns:
        ``beside`` and the current directory, where one of the modules lies in one of them.
    """
    places = [str(beside.resolve()), os.getcwd()]
    tops = {_top(name) for name in code_in(document)}
    installed = [p for p in sys.path if os.path.abspath(p) not in looked_in()]
    mine = [t for t in tops if PathFinder.find_spec(t, installed) is None and _in(t, places)]
    return list(dict.fromkeys(places)) if mine else []


def doubles(document: Any, directories: Sequence[str]) -> list[str]:
    """Return a line for every module that lies in several of these directories."""
    lines = []
    for top in sorted({_top(name) for name in code_in(document)}):
        specs = [s for d in directories if (s := PathFinder.find_spec(top, [d])) and s.origin]
        files = list(dict.fromkeys(os.path.realpath(str(s.origin)) for s in specs))
        if len(files) > 1:
            lines.append(f"{top} is taken from {files[0]}, not from {', '.join(files[1:])}")
    return lines


def check_found(document: Any) -> None:
    """Refuse a configuration whose modules this process has and a worker would not find.

    Raises:
        InputError: such a module.
    """
    for name in code_in(document):
        top = _top(name)
        if top in sys.modules and file_of(name) is None:
            places = ", ".join(looked_in()) or "no directory"
            raise InputError(
                f"{name}: a worker cannot go on without the module {top}: expected it installed "
                f"or in {places}, got one that only this process knows"
            )


def _place(directories: list[str]) -> None:
    sys.path[:] = [place for place in sys.path if place not in _added]
    _added[:] = [place for place in directories if place not in sys.path]
    sys.path += _added
    os.environ[VARIABLE] = json.dumps(directories)


def _top(name: str) -> str:
    return name.partition(":")[0].partition(".")[0]


def _in(top: str, directories: Sequence[str]) -> bool:
    return PathFinder.find_spec(top, list(directories)) is not None


def _spec(top: str) -> ModuleSpec | None:
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(top, None)
        except ImportError:
            continue
        if spec is not None:
            return spec
    return None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for child in value.values():
            yield from _texts(child)
    elif isinstance(value, list | tuple):
        for child in value:
            yield from _texts(child)
