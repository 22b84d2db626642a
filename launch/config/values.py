"""From plain YAML to typed values; a mistake is one line that says where, what and what instead."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError

from nas.errors import InputError


def build_value(kind: type[Any], settings: Mapping[str, Any], where: str) -> Any:
    """Return ``kind(**settings)`` with types checked, or raise one line that names the setting."""
    refuse_unknown(settings, [f.name for f in fields(kind)], where)
    made: Any = kind  # mypy doubts that a class can be hashed
    return validated(_adapter(made), dict(settings), where, kind)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)  # takes longer to make than anything that it reads


def named(value: Mapping[str, Any], where: str) -> tuple[str, dict[str, Any]]:
    """Return the ``name`` of a mapping, and its other keys; raise InputError without one."""
    settings = dict(value)
    name = settings.pop("name", None)
    if not isinstance(name, str):
        raise InputError(f"{where}: expected a name, got {dict(value)}")
    return name, settings


def refuse_unknown(settings: Mapping[str, Any], known: list[str], where: str) -> None:
    """Raise InputError for a key that is not among ``known``, and list those."""
    for key in settings:
        if key not in known:
            raise InputError(f"{where}.{key}: unknown key; known: {', '.join(known) or 'none'}")


def validated(adapter: TypeAdapter[Any], value: Any, where: str, kind: type[Any]) -> Any:
    """Return ``value`` as the adapter's type, or raise one line that says where and what."""
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise InputError(_one_line(error, where, kind)) from error


_FRACTION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)\s*$")


def fractions(value: Any) -> Any:
    """Return ``value`` with strings such as ``8/255`` as the numbers they mean."""
    if isinstance(value, dict):
        return {k: fractions(v) for k, v in value.items()}
    if isinstance(value, list):
        return [fractions(v) for v in value]
    if isinstance(value, str) and (match := _FRACTION.match(value)) and float(match[2]):
        return float(match[1]) / float(match[2])
    return value


def plain(value: Any) -> Any:
    """Return mappings as dicts and tuples as lists: what YAML and JSON know."""
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested dicts as one with dotted keys."""
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, child in value.items():
        found |= flat(child, f"{prefix}.{key}" if prefix else str(key))
    return found


def _one_line(error: ValidationError, where: str, kind: type[Any]) -> str:
    first = error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"]]
    place = ".".join([where, *path] if where else path)
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = ", ".join(_known_keys(kind, path[:-1]))
        return f"{place}: unknown key; known: {known}"
    if first["type"] == "value_error":
        message = str(first["ctx"]["error"])
        if not place:
            return message
        # "recipe" and "epsilon: expected ..." become "recipe.epsilon: expected ..."
        return f"{place}.{message}" if re.match(r"[a-z_.]+: ", message) else f"{place}: {message}"
    expected = first["msg"].replace("Input should be", "expected")
    return f"{place}: {expected}, got {first['input']!r}"


def _known_keys(kind: Any, path: list[str]) -> list[str]:
    for part in path:
        field = _fields_of(kind).get(part)
        kind = next((k for k in _alternatives(field) if _fields_of(k)), None)
    return list(_fields_of(kind))


def _fields_of(kind: Any) -> dict[str, Any]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        return {f.name: hints[f.name] for f in fields(kind)}
    return {}


def _alternatives(kind: Any) -> list[Any]:
    return [kind, *get_args(kind)]
