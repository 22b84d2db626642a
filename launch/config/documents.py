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


def read_document(source: str | Path) -> dict[str, Any]:
    """Return the YAML mapping of a preset or a file."""
    path = Path(source)
    if path.suffix in (".yaml", ".yml"):
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            why = first_line(error)
            raise InputError(f"expected a preset or a YAML file, got {source}: {why}") from error
    elif str(source) in _presets():
        text = _presets()[str(source)].read_text()
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


def preset_names() -> list[str]:
    """Return the names of the presets, the default one first."""
    return sorted(_presets(), key=lambda name: (name != "digits", name))


def preset_about(name: str) -> str:
    """Return the first comment line of a preset."""
    return str(_presets()[name].read_text().splitlines()[0].lstrip("# "))


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
