"""Trials, ledgers and searches: ``from nas import evaluate, Trial, Recipe, load_table``.

These names are imported when they are asked for, so that reading a table does not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.ledger.table import load_table
    from nas.trial.evaluation import evaluate
    from nas.trial.recipe import Recipe
    from nas.trial.trial import Trial

__all__ = ["Recipe", "Trial", "evaluate", "load_table"]

_WHERE = {
    "Recipe": "nas.trial.recipe",
    "Trial": "nas.trial.trial",
    "evaluate": "nas.trial.evaluation",
    "load_table": "nas.ledger.table",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'nas' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)
