"""Suspicion flags: which robust accuracies may be false, and what to do about each."""

from __future__ import annotations

from collections import Counter

from launch.report.findings import Findings
from launch.report.numbers import counted
from launch.report.page import Section, Table
from nas.search.trust import ADVICE, was_checked

MOST = 8  # trials that are named


def make(found: Findings) -> Section | None:
    """Return the flags that trials raise; None where nothing is complete."""
    if len(found.complete) == 0:
        return None
    title = "Suspicion flags"
    if not was_checked(dict.fromkeys(map(str, found.table.columns))):
        lead = (
            "No trial was checked: the metric suspicion was not configured, so nothing here says "
            "whether gradients are masked."
        )
        return Section("flags", title, lead)
    if not found.flags:
        return Section(
            "flags", title, f"None of {counted(len(found.complete), 'complete trial')} raised one."
        )
    counts = Counter(flag for names in found.flags.values() for flag in names)
    rows = []
    for flag, count in counts.most_common():
        named = [key for key, names in found.flags.items() if flag in names]
        texts = [f"{n}" if len(found.runs) == 1 else f"{run}:{n}" for run, n in named[:MOST]]
        more = f" and {len(named) - MOST:,} more" if len(named) > MOST else ""
        rows.append([flag, f"{count:,}", ", ".join(texts) + more, ADVICE.get(flag, "")])
    lead = (
        f"{counted(len(found.flags), 'trial')} of {counted(len(found.complete), 'complete trial')} "
        "raised at least one flag: an accuracy under attack that is likely too high. Such a trial "
        "wins only where every one has a flag."
    )
    columns = ["flag", "trials", "which", "what it means, and what to do"]
    return Section(
        "flags", title, lead, [Table("Flags that were raised.", columns, rows, frozenset({1}))]
    )
