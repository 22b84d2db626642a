"""From a name in a configuration to the thing it means."""

from __future__ import annotations

import difflib
import pkgutil
from collections.abc import Iterable, Mapping
from typing import TypeVar

from nas.errors import InputError

T = TypeVar("T")
FEW = 8  # names that still fit on a line


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


def known_names(name: str, known: Iterable[str], where: str = "") -> str:
    """Return what a line that refuses ``name`` says is known: all of a few, else the near ones.

    Args:
        name: what came; the end of ``NAME:max`` plays no part.
        known: what would have been taken.
        where: says who lists all of them, behind more than a few.
    """
    names = list(dict.fromkeys(known))
    if len(names) <= FEW:
        return ", ".join(names) or "there is none"
    asked = name.partition(":")[0].strip().lower()
    lowered = {known.lower(): known for known in reversed(names)}
    near = [lowered[n] for n in difflib.get_close_matches(asked, lowered, n=3, cutoff=0.5)]
    inside = [n for n in names if asked and asked in n.lower()]
    shown = list(dict.fromkeys([*near, *inside]))[:4] or names[:3]
    more = len(names) - len(shown)
    return f"{', '.join(shown)} or one of {more} others{where and f': {where} lists them'}"
