"""Which decisions matter for a score, with intervals over resampled trials."""

from __future__ import annotations

import math
from zlib import crc32

import pandas as pd

from launch.report.charts import Chart, chart
from launch.report.findings import Findings
from launch.report.page import Block, Paragraph, Section
from launch.report.plots import Axis, Plot, Series
from nas.analysis import importance
from nas.errors import InputError

MOST = 12  # decisions of a chart
RESAMPLES = 100
FEWEST = 4  # complete trials


def make(found: Findings) -> Section | None:
    """Return a chart for each of at most two objectives; None where there is nothing to compare."""
    decisions = [name for name in found.decisions if found.complete[name].nunique() > 1]
    scores = [name for name in found.objectives if name in found.complete][:2]
    if len(found.complete) < FEWEST or not decisions or not scores:
        return None
    blocks: list[Block] = []
    for score in scores:
        try:
            table = importance(
                found.table, score, decisions=list(decisions), resamples=RESAMPLES, seed=0
            )
        except InputError as error:
            blocks.append(Paragraph(f"{score}: {error}", "note"))
            continue
        notes = [str(note) for note in table.attrs.get("notes", [])]
        if table["importance"].notna().any():
            blocks.append(importance_chart(table, score))
        blocks += [
            Paragraph(f"{note[:1].upper()}{note[1:]}.".replace("..", "."), "note") for note in notes
        ]
    lead = (
        "How much each decision tells the best tenth of trials from all of them (PED-ANOVA); the "
        f"shares sum to 1. The bars are 95 % intervals over {RESAMPLES} resamples of the trials: "
        "where they overlap, the order is not settled. A sampler that seeks tries good choices "
        "more often, which this does not undo."
    )
    if len(found.runs) > 1:
        lead += " The trials of all runs are taken together."
    return Section("importance", "Which decisions matter", lead, blocks)


def importance_chart(table: pd.DataFrame, score: str) -> Chart:
    """Return bars with intervals, the most important decision at the top."""
    rows = table.head(MOST).to_dict("records")
    low = [_number(row["low"]) for row in rows]
    high = [_number(row["high"]) for row in rows]
    hover = [
        f"{row['decision']}\nimportance {row['importance']:.3f}"
        + (f" [{row['low']:.3f}, {row['high']:.3f}]" if _number(row["low"]) is not None else "")
        + f"\nn = {row['n']}"
        for row in rows
    ]
    bars = Series(
        score,
        [_number(row["importance"]) for row in rows],
        list(range(len(rows))),
        "bars",
        0,
        hover,
        low,
        high,
        legend=False,
    )
    plot = Plot(
        (bars,),
        Axis("importance", low=0),
        Axis("", categories=tuple(str(row["decision"]) for row in rows)),
        horizontal=True,
        height=80 + 28 * len(rows),
    )
    n = max((int(row["n"]) for row in rows), default=0)
    more = f" The first {MOST} of {len(table)} decisions." if len(table) > MOST else ""
    caption = f"Of {n:,} complete trials.{more}"
    return chart(f"importance-{crc32(score.encode())}", f"For {score}", caption, plot)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
