"""Grids over depth and channels as the Ψ paper prints them, and short names of models."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd


def grid_lines(
    title: str, cells: pd.DataFrame, name: str, printed: Mapping[tuple[int, int], float]
) -> list[str]:
    """Return ``cells`` as a grid, depth down and channels across: ours, the paper's, the ratio.

    The geometric mean where a cell has several models.
    """
    channels = sorted({int(c) for c in cells["channels"]})
    beside = ": ours, paper, ratio" if printed else ""
    lines = [f"{title}{beside}", "    D" + "".join(f"{f'C = {c}':>28}" for c in channels)]
    for depth in sorted({int(d) for d in cells["depth"]}):
        rows = cells[cells["depth"] == depth]
        values = np.exp(np.log(rows[name]).groupby(rows["channels"]).mean())
        texts = []
        for c in channels:
            value, known = values.get(c, math.nan), printed.get((depth, c), math.nan)
            beside = f"{known:9.4g} {value / known:7.3g}" if not math.isnan(known) else ""
            texts.append(f" {value:9.4g} {beside:17}")
        lines.append(f"{depth:5}" + "".join(texts).rstrip())
    return lines


def model_name(decisions: Mapping[Any, Any]) -> str:
    """Return a model's decisions in short: ``D=4 C=16 repeat=1``."""
    short = {"depth": "D", "channels": "C"}
    return " ".join(f"{short.get(k, str(k).rpartition('.')[2])}={v}" for k, v in decisions.items())
