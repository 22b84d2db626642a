"""Search spaces with odd choices or settings, for tests that name them as ``odd_spaces:Odd``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import nn

from search_spaces import SearchSpace


class Kind(Enum):
    a = "a"


class Text(StrEnum):
    a = "a"


@dataclass(frozen=True, kw_only=True)
class Odd(SearchSpace):
    """Its decisions are whatever a test sets, its setting is kept."""

    setting: Any = None
    asked: ClassVar[Any] = {"kind": ("a", "b")}

    def decisions(self):
        return self.asked() if callable(self.asked) else self.asked

    def network(self, architecture, task):
        channels, height, width = task.shape
        return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, task.classes))


ODD_SETTINGS = {
    "set": {1, 2},
    "path": Path("x"),
    "enum": Kind.a,
    "text enum": Text.a,
    "numpy": np.float64(0.5),
    "nan": float("nan"),
    "integer keys": {1: "a"},
    "surrogate": "a\ud800",
    "deep": [{"a": (1, {2})}],
    "bytes": b"x",
}
