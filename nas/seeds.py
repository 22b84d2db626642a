"""Seeds by hashing what a number may depend on, so that trial numbers and workers play no part."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any


def derive_seed(*parts: int | str) -> int:
    """Return a seed in [0, 2^63) that depends on every part and their order."""
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def value_hash(
    value: Any, *, leave_out: tuple[str, ...] = (), later: Mapping[str, Any] | None = None
) -> str:
    """Return 16 hex digits over a dataclass's fields.

    Args:
        value: a dataclass.
        leave_out: fields that play no part.
        later: fields that there were not at first, with what was the rule then; where they have
            that value they play no part, so that earlier hashes stay.
    """
    later = later or {}
    return settings_hash(
        {
            k: v
            for k, v in asdict(value).items()
            if k not in leave_out and not (k in later and v == later[k])
        }
    )


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Return 16 hex digits over named JSON values, whatever their order."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
