"""Whether the weights that a trial kept are averaged ones, as its row of the ledger says.

This file loads no torch, so that a table need not wait for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BEST_IS_AVERAGE = "best_is_average"
"""Score, only where ``recipe.weight_average`` is set: 1 where the weights that were scored and are
kept are averaged ones, 0 where they are plain. Of repeats it is the share of them."""


def averaged(result: Mapping[str, Any]) -> bool:
    """Whether a trial's weights are averaged ones; of repeats those of the one that was kept."""
    repeats = result.get("repeats")
    scores = repeats[result["kept_repeat"]] if repeats else result.get("scores", {})
    return bool(scores.get(BEST_IS_AVERAGE) == 1)
