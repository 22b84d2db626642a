"""From a trial table to a decision: ``from nas.analysis import load_table, pareto, importance``.

Every function takes the table of :func:`load_table` and returns a number, a value or another
DataFrame, so that it works in a notebook. Names are imported when they are asked for: reading a
table loads neither torch nor scipy nor Optuna. No module here has the name of a function, which it
would hide.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.analysis.comparison import Comparison, compare
    from nas.analysis.correlation import correlations
    from nas.analysis.decisive import importance
    from nas.analysis.front import hypervolume, pareto, reference_point
    from nas.analysis.judgement import Verdict, judge
    from nas.analysis.seed_repeats import seeds
    from nas.analysis.trial_table import load_table

__all__ = [
    "Comparison",
    "Verdict",
    "compare",
    "correlations",
    "hypervolume",
    "importance",
    "judge",
    "load_table",
    "pareto",
    "reference_point",
    "seeds",
]

_WHERE = {
    "Comparison": "nas.analysis.comparison",
    "Verdict": "nas.analysis.judgement",
    "compare": "nas.analysis.comparison",
    "correlations": "nas.analysis.correlation",
    "hypervolume": "nas.analysis.front",
    "importance": "nas.analysis.decisive",
    "judge": "nas.analysis.judgement",
    "load_table": "nas.analysis.trial_table",
    "pareto": "nas.analysis.front",
    "reference_point": "nas.analysis.front",
    "seeds": "nas.analysis.seed_repeats",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'nas.analysis' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
