"""Where the files of a dataset lie; a configuration says so by ``data.root`` and ``data.name``.

``data.name`` is what the data are called, and part of every trial's key, so it stays as written.
``data.root`` is where they lie: a search stores it as an absolute path, so that its run and its
exports find the files from any directory, and data that moved are found by another root.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from nas.data.config import DataConfig
from nas.errors import InputError

KINDS_OF_PATHS = ("npz", "folder")
WITHOUT_FILES = ("digits", "noise")
ROOT_VARIABLE = "PSINAS_DATA"


def path_of(name: str) -> Path | None:
    """Return the path in ``npz:PATH`` and ``folder:PATH``; None of other datasets."""
    kind, _, path = name.partition(":")
    return Path(path).expanduser() if path and kind in KINDS_OF_PATHS else None


def default_root() -> Path:
    """Return the directory of files where ``data.root`` names none."""
    return Path(os.environ.get(ROOT_VARIABLE) or "~/.cache/psinas").expanduser()


def data_root(config: DataConfig) -> Path:
    """Return the directory in which the files of named datasets are looked for first."""
    return Path(config.root).expanduser() if config.root else default_root()


def find_path(config: DataConfig, path: Path) -> Path:
    """Return the file or folder that ``npz:PATH`` or ``folder:PATH`` means.

    A relative path is looked for in ``data.root``, in the current directory and in
    ``$PSINAS_DATA``; an absolute one that has moved by its last part in ``data.root``.

    Raises:
        InputError: it is in none of them.
    """
    root = [Path(config.root).expanduser()] if config.root else []
    if path.is_absolute():
        places = [path, *(directory / path.name for directory in root)]
    else:
        places = [directory / path for directory in (*root, Path.cwd(), default_root())]
    for place in places:
        if os.path.exists(place):  # noqa: PTH110  false for what no file can be called, too
            return place
    raise InputError(
        f"data: expected a readable .npz or folder at {' or '.join(map(str, places))}, got none; "
        "data.root names the directory in which it lies"
    )


def located(
    config: DataConfig, names: Iterable[str] = (), beside: Path | None = None
) -> DataConfig:
    """Return the same data with ``root`` absolute, so that they are found from any directory.

    Without a ``root`` it becomes the first directory that holds one of the relative paths:
    ``beside``, the current directory, ``$PSINAS_DATA``. What is found nowhere is left as it is, and
    so are paths beside datasets such as mnist, whose files lie elsewhere.

    Args:
        config: of the data.
        names: further datasets of the search, under ``vary: {data.name: ...}``.
        beside: a directory that comes before the current one, that of the configuration say.
    """
    bases = [Path.cwd()] if beside is None else [beside, Path.cwd()]
    if config.root is not None:
        root = Path(config.root).expanduser()
        there = (base / root for base in bases if (base / root).is_dir())
        return _rooted(config, next(there, bases[0] / root))
    paths = {name: path_of(name) for name in (config.name, *names)}
    relative = [path for path in paths.values() if path is not None and not path.is_absolute()]
    if any(path is None and name not in WITHOUT_FILES for name, path in paths.items()):
        bases = []
    for base in (*bases, default_root()):
        if any(os.path.exists(base / path) for path in relative):  # noqa: PTH110
            return _rooted(config, base)
    if not default_root().is_absolute():
        return _rooted(config, default_root())
    return config


def as_saved(asked: DataConfig, saved: DataConfig, *, known: bool) -> DataConfig:
    """Return data that are asked for under the name that they have in a run, where they are its.

    They are where both names lead to one file. Where the run's leads to none any more, the file has
    moved: one of the same name is taken for it if its checksum is known, and so will be compared.

    Args:
        asked: the data of a search that goes on.
        saved: the data of the run.
        known: whether the run has their checksum.
    """
    ours, theirs = path_of(saved.name), path_of(asked.name)
    kinds = {config.name.partition(":")[0] for config in (asked, saved)}
    if asked.name == saved.name or ours is None or theirs is None or len(kinds) > 1:
        return asked
    try:
        there = find_path(asked, theirs)
    except InputError:
        return asked
    try:
        if os.path.samefile(find_path(saved, ours), there):  # noqa: PTH121
            return replace(asked, name=saved.name, root=saved.root)
    except InputError:
        tail = (ours.name,) if ours.is_absolute() else ours.parts
        if known and there.parts[-len(tail) :] == tail:
            root = Path(*Path(os.path.abspath(there)).parts[: -len(tail)])  # noqa: PTH100
            return replace(asked, name=saved.name, root=str(root))
    return asked


def _rooted(config: DataConfig, root: Path) -> DataConfig:
    return replace(config, root=os.path.abspath(root))  # noqa: PTH100  links stay as they are
