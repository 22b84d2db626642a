"""Configurations as they are written: presets, YAML files, and ``key=value`` laid over them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources as package_files
from pathlib import Path
from typing import Any

import yaml

from nas.errors import InputError, first_line
from nas.files import write_whole

PATH_KINDS = ("npz", "folder")
PATH_KEYS = (("data", "root"), ("space", "weights"))


def read_document(source: str | Path) -> dict[str, Any]:
    """Return the YAML mapping of a preset or a file."""
    path = Path(source)
    if path.suffix in (".yaml", ".yml"):
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = first_line(error)
            raise InputError(f"expected a preset or a YAML file, got {source}: {why}") from error
    elif str(source) in _presets():
        text = _presets()[str(source)].read_text(encoding="utf-8")
    else:
        raise InputError(
            f"expected a preset ({', '.join(preset_names())}) or a .yaml file, got {str(source)!r}"
        )
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise InputError(f"{source}: expected YAML, got {problem}") from error
    if not isinstance(document, dict):
        raise InputError(f"{source}: expected a mapping of keys, got {type(document).__name__}")
    return document


def save_document(path: Path, document: Mapping[str, Any]) -> None:
    """Write a YAML mapping, whole or not at all."""
    text = yaml.safe_dump(dict(document), sort_keys=False, default_flow_style=None, width=100)
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def at_home(document: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Return a document whose relative paths lie beside its file, where there is such a file.

    Others stay as they are: relative to the current directory, or to the data's root. Paths are
    ``data.root``, ``npz:PATH`` and ``folder:PATH``, the values of ``vary`` among them, ``modules``
    and a space's ``weights``.
    """
    if directory.resolve() == Path.cwd():
        return document
    return {key: _at_home(value, (key,), directory) for key, value in document.items()}


def _at_home(value: Any, keys: tuple[str, ...], directory: Path) -> Any:
    if isinstance(value, dict):
        return {k: _at_home(v, (*keys, *str(k).split(".")), directory) for k, v in value.items()}
    if isinstance(value, list):
        return [_at_home(v, keys, directory) for v in value]
    if not isinstance(value, str):
        return value
    kind, colon, path = value.partition(":")
    if keys[-2:] == ("data", "name") and colon and kind in PATH_KINDS:
        return f"{kind}:{_found(path, directory)}"
    if keys[-2:] in PATH_KEYS or keys == ("modules",):
        return _found(value, directory)
    return value


def _found(path: str, directory: Path) -> str:
    place = directory / Path(path).expanduser()  # directory plays no part where path is whole
    return str(place.resolve()) if place.exists() else path


def preset_names() -> list[str]:
    """Return the names of the presets, the default one first."""
    return sorted(_presets(), key=lambda name: (name != "digits", name))


def preset_about(name: str) -> str:
    """Return the first comment line of a preset."""
    return str(_presets()[name].read_text(encoding="utf-8").splitlines()[0].lstrip("# "))


def assign(document: dict[str, Any], assignment: str, option: str = "--set") -> None:
    """Lay ``key=value`` over a document; dots lead into it, the value is YAML.

    Raises:
        InputError: no such form.
    """
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise InputError(f"{option}: expected key=value, got {assignment!r}")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{option} {key}: expected a YAML value, got {text!r}") from error
    *path, last = key.split(".") if not key.startswith("vary.") else ["vary", key[5:]]
    node = document
    for part in path:
        child = node.get(part)
        node[part] = dict(child) if isinstance(child, dict) else {}
        node = node[part]
    node[last] = value


@cache
def _presets() -> dict[str, Any]:
    """Return every preset's file by its name: those of no paper, then each paper's own."""
    launch = package_files.files("launch")
    papers = sorted(launch.joinpath("papers").iterdir(), key=lambda place: place.name)
    return {
        file.name.removesuffix(".yaml"): file
        for place in (launch.joinpath("config"), *papers)
        if (presets := place.joinpath("presets")).is_dir()
        for file in presets.iterdir()
        if file.name.endswith(".yaml")
    }
