"""Seeds by hashing what a number may depend on, so that trial numbers and workers play no part."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any


def derive_seed(*parts: int | str) -> int:
    """Return a seed in [0, 2^63) that depends on every part and their order."""
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def value_hash(value: Any, *, leave_out: tuple[str, ...] = ()) -> str:
    """Return 16 hex digits over a dataclass's fields, those of dataclasses in it included.

    A class whose hashes are kept names in ``first_fields`` the fields that it had at first. They
    always count; one that came later counts where it differs from its default, which is what was
    the rule before there was the field. So a release that adds a field knows earlier hashes.

    Args:
        value: a dataclass.
        leave_out: fields that play no part.

    Raises:
        TypeError: a field that came later has no default.
    """
    counted = _counted(value)
    return settings_hash({k: v for k, v in counted.items() if k not in leave_out})


def _counted(value: Any) -> dict[str, Any]:
    first = getattr(value, "first_fields", None)
    counted = {}
    for field in fields(value):
        found = getattr(value, field.name)
        if first is None or field.name in first or found != rule_before(field):
            counted[field.name] = _counted(found) if is_dataclass(found) else found
    return counted


def rule_before(field: Field[Any]) -> Any:
    """Return the default of a field that came later than its class.

    Raises:
        TypeError: it has none.
    """
    if field.default is not MISSING:
        return field.default
    if field.default_factory is not MISSING:
        return field.default_factory()
    raise TypeError(f"{field.name}: expected a default of a field that came later, got none")


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Return 16 hex digits over named JSON values, whatever their order."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
