"""From a name in a configuration to the thing it means."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from typing import TypeVar

from nas.errors import InputError

T = TypeVar("T")


def find(name: str, known: Mapping[str, T], what: str) -> T:
    """Return ``known[name]``, or the object behind ``"package.module:Thing"``.

    Raises:
        InputError: neither; the message lists the known names.
    """
    if name in known:
        return known[name]
    if not name.partition(":")[2]:
        raise InputError(
            f"{what}: expected one of {', '.join(known)} or pkg.module:Thing, got {name!r}"
        )
    try:
        found: T = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{what}: {name!r} cannot be imported: {error}") from error
    return found
