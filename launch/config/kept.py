"""Whether a configuration comes back from the YAML that a run directory keeps of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from nas.errors import InputError

SHOWN = 80  # characters of a value in a line


def check_kept(value: Any, where: str = "") -> None:
    """Refuse a value that would not come back as it is from YAML, or from a worker's JSON.

    Settings of a space, a metric or a sampler of the user's may be of any type.

    Raises:
        InputError: with the key of a value that is neither text, a number, true, false, null, nor a
            list or a mapping of them.
    """
    if isinstance(value, Mapping):
        for key, child in value.items():
            if type(key) is not str:
                raise InputError(f"{where}: expected keys of text, got {key!r}")
            check_kept(child, f"{where}.{key}" if where else key)
    elif isinstance(value, list | tuple):
        for index, child in enumerate(value):
            check_kept(child, f"{where}[{index}]")
    elif type(value) not in (str, int, float, bool, type(None)):
        kind = f"{type(value).__module__}.{type(value).__name__}".removeprefix("builtins.")
        raise InputError(
            f"{where}: expected text, numbers, true, false, null, or lists or mappings of them, "
            f"which the run's YAML can keep, got {_short(value)} ({kind})"
        )
    elif isinstance(value, float) and math.isnan(value):
        raise InputError(f"{where}: expected a value that equals itself, got nan")
    elif isinstance(value, str) and not _encodable(value):
        raise InputError(f"{where}: expected text that UTF-8 can write, got {_short(value)}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 4]} ..."


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
