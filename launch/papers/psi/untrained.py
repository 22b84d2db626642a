"""Table 2 and Figure 4 of the Ψ paper: untrained nets on noise, beside the limit r → 0."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from launch.papers.psi import figures
from launch.papers.psi import printed as paper
from launch.papers.psi.grids import grid_lines
from launch.runs.run import Run
from launch.show.reporter import Reporter
from launch.show.view import View

FROZEN = {"frozen_1e-5": 1e-5, "frozen_1e-4": 1e-4, "frozen_1e-3": 1e-3}  # score -> radius
SCORES = ("psi", "psi_1.5e-4", "psi_limit", *FROZEN)


def table_2(runs: Sequence[Run], report: Reporter) -> View:
    """Table 2 and Figure 4: Ψ̂ of untrained nets on noise, beside the limit r → 0."""
    cells = untrained_cells(runs[0].table())
    lines = []
    for name, radius in (("psi", "1e-4"), ("psi_1.5e-4", "1.5e-4")):
        title = f"Ψ̂ at r = {radius}, sign step, batch statistics"
        lines += [*grid_lines(title, cells, name, paper.TABLE_2), *_inside(cells, name), ""]
    lines += grid_lines("Limit r → 0, frozen statistics", cells, "psi_limit", paper.TABLE_2)
    lines += ["", "How far outputs move, ψ·r, at r = 1e-5, 1e-4, 1e-3 (geometric mean over C):"]
    for depth, rows in cells.groupby("depth"):
        moved = [_geometric(rows[n]) * r for n, r in FROZEN.items()]
        share = _geometric(rows["frozen_1e-4"] / rows["psi_limit"])
        text = ", ".join(f"{v:.2e}" for v in moved)
        lines.append(f"  D = {depth:<3} {text}; Ψ̂(1e-4) is {share:.2g} of the limit")
    lines += _saturation(cells)
    return View(cells, lines, figures.untrained(cells))


def _saturation(cells: pd.DataFrame) -> list[str]:
    """Say at which depths outputs are saturated: ψ·r grows by less than a third of r."""
    by_depth = cells[[*FROZEN]].map(math.log).groupby(cells["depth"]).mean()
    first, last = by_depth.iloc[:, 0] + math.log(1e-5), by_depth.iloc[:, -1] + math.log(1e-3)
    flat = [str(d) for d in by_depth.index[(last - first) < math.log(100) / 3]]
    if not flat:
        return ["Outputs saturate at no depth: ψ·r grows with r throughout."]
    return [
        f"At D = {', '.join(flat)} ψ·r hardly grows with r: outputs are as far away as they get, "
        "and Ψ̂ falls like 1/r. A dip of Ψ̂ there is saturation, not robustness (see the limit), and "
        "says which radius was used; the paper does not give its own."
    ]


def _inside(cells: pd.DataFrame, name: str) -> list[str]:
    """Say how many cells are near the paper's."""
    known = cells.dropna(subset="paper")
    if known.empty:
        return []
    off = (np.log(known[name]) - np.log(known["paper"])).abs()
    lines = []
    for which, rows, factor in (
        ("D <= 32", off[known["depth"] <= 32], 2),
        ("D = 64", off[known["depth"] == 64], 3),
    ):
        if len(rows):
            inside = int((rows <= math.log(factor)).sum())
            lines.append(
                f"{which}: {inside} of {len(rows)} cells within x/÷ {factor} of the paper, the "
                f"farthest x/÷ {math.exp(rows.max()):.2f}"
            )
    return [*lines, f"root mean square of ln(ours / paper): {math.sqrt((off**2).mean()):.2f}"]


def untrained_cells(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row a cell: geometric means over seeds, the spread of ln Ψ̂, the paper's value."""
    rows = []
    complete = table[table["status"] == "complete"]
    cells = sorted(set(zip(complete["depth"].map(int), complete["channels"].map(int), strict=True)))
    for depth, channels in cells:
        group = complete[(complete["depth"] == depth) & (complete["channels"] == channels)]
        printed = paper.TABLE_2.get((depth, channels), math.nan)
        psi = _geometric(group["psi"])
        rows.append(
            {
                "depth": depth,
                "channels": channels,
                "seeds": len(group),
                **{name: _geometric(group[name]) for name in SCORES},
                "ln_psi_sd": np.log(group["psi"]).std(),
                "paper": printed,
                "ratio": psi / printed,
            }
        )
    return pd.DataFrame(rows)


def _geometric(values: pd.Series) -> float:
    return math.exp(np.log(values).mean())
