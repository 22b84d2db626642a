"""Which trials failed, and why."""

from __future__ import annotations

from collections import Counter

from launch.report.charts import chart
from launch.report.findings import RUN, Findings
from launch.report.page import Block, Section, Table
from launch.report.plots import Axis, Plot, Series

MOST = 15
GOOD = ("complete", "running", "stopped")


def make(found: Findings) -> Section | None:
    """Return how trials ended, and the reasons of those that failed; None without trials."""
    if found.table.empty:
        return None
    statuses = found.table.groupby([RUN, "status"], sort=False).size()
    names = list(dict.fromkeys(status for _, status in statuses.index))
    bars = []
    for place, searched in enumerate(found.runs):
        counts = [int(statuses.get((searched.label, name), 0)) for name in names]
        share = 0.7 / len(found.runs)
        at = [i + (place - (len(found.runs) - 1) / 2) * share for i in range(len(names))]
        hover = [f"{n} {name}" for n, name in zip(counts, names, strict=True)]
        several = len(found.runs) > 1
        bars.append(
            Series(
                searched.label, counts, at, "bars", place, hover, legend=several, fill=share * 0.9
            )
        )
    plot = Plot(
        tuple(bars),
        Axis("trials", low=0),
        Axis("", categories=tuple(names)),
        horizontal=True,
        height=90 + 34 * len(names),
    )
    failed = found.table[~found.table["status"].isin(GOOD)]
    caption = f"All {len(found.table):,} trials by how they ended."
    blocks: list[Block] = [chart("failures-chart", "How trials ended", caption, plot)]
    if failed.empty:
        return Section("failures", "Failures", "No trial failed.", (blocks[0],))
    reasons = Counter(zip(failed["status"], failed["reason"], strict=True))
    rows = [
        [f"{count:,}", str(status), str(reason) or "no reason was kept"]
        for (status, reason), count in reasons.most_common(MOST)
    ]
    more = f" The {MOST} most frequent of {len(reasons)}." if len(reasons) > MOST else ""
    lead = (
        f"{len(failed):,} of {len(found.table):,} trials failed: a failure is a row with a reason."
    )
    table = Table(f"Reasons.{more}", ["trials", "status", "reason"], rows, frozenset({0}))
    return Section("failures", "Failures", lead, (blocks[0], table))
