"""What a reproduction or an analysis leaves, and how its tables are printed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nas.errors import InputError
from nas.trial.files import write_whole

Tell = Callable[[str], None]
"""Prints a line of progress."""


@dataclass(frozen=True)
class Outcome:
    """What a reproduction found: its table, what to print, and its picture."""

    table: pd.DataFrame
    lines: list[str]
    figure: Figure


def write_outcome(run: Path, name: str, outcome: Outcome) -> tuple[Path, Path]:
    """Write ``NAME.csv`` and ``NAME.png`` to the run directory, each whole; return the paths."""
    table, picture = run / f"{name}.csv", run / f"{name}.png"
    write_whole(table, lambda p: outcome.table.to_csv(p, index=False))
    write_whole(picture, lambda p: outcome.figure.savefig(p, format="png", dpi=150))
    return table, picture


def check_csv(out: Path, *, other_than: Path) -> None:
    """Refuse a file that cannot be written, is no CSV or is the input, before the work.

    Raises:
        InputError: such a file.
    """
    if out.suffix != ".csv":
        raise InputError(f"--out: expected a file that ends in .csv, got {out}")
    if out.resolve() == other_than.resolve():
        raise InputError(f"--out: expected another file than the table, got {out}")
    if out.is_dir():
        raise InputError(f"--out: expected a file to write, got the directory {out}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        probe = out.with_name(f".{out.name}.probe")
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise InputError(f"--out: expected a file to write, got {out}: {error}") from error


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
