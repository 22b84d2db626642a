"""An architecture: a value that says which network, with no torch in it.

It travels through JSON to a worker, a ledger or a paper.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Choice = str | int | float | bool
"""One fixed answer of a decision."""


def canonical_hash(graph: object) -> str:
    """Return 16 hex digits of the SHA-256 of ``graph`` as sorted JSON."""
    text = json.dumps(graph, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Architecture:
    """Which network: a frozen, hashable, JSON-able value.

    Attributes:
        space: a name in ``SEARCH_SPACES`` or ``"package.module:Class"``.
        settings: the space's own settings, as sorted ``(name, value)`` pairs.
        choices: one ``(decision, choice)`` pair for each decision, in the space's order.
        hash: equal for two architectures that build the same graph.
    """

    space: str
    settings: tuple[tuple[str, Any], ...]
    choices: tuple[tuple[str, Choice], ...]
    hash: str

    def __getitem__(self, decision: str) -> Choice:
        return dict(self.choices)[decision]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; :meth:`from_dict` gives the architecture back."""
        return {
            "space": self.space,
            "settings": {name: _thaw(value) for name, value in self.settings},
            "choices": dict(self.choices),
            "hash": self.hash,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Architecture:
        """Return the architecture that :meth:`to_dict` wrote."""
        return cls(
            value["space"],
            tuple((name, _freeze(v)) for name, v in sorted(value["settings"].items())),
            tuple(value["choices"].items()),
            value["hash"],
        )


def _freeze(value: Any) -> Any:
    return tuple(_freeze(v) for v in value) if isinstance(value, list | tuple) else value


def _thaw(value: Any) -> Any:
    return [_thaw(v) for v in value] if isinstance(value, tuple) else value
