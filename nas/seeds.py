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


def value_hash(value: Any, *, leave_out: tuple[str, ...] = ()) -> str:
    """Return 16 hex digits over a dataclass's fields, those in ``leave_out`` aside."""
    return settings_hash({k: v for k, v in asdict(value).items() if k not in leave_out})


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Return 16 hex digits over named JSON values, whatever their order."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
