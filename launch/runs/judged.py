"""What stronger judges found, for a person: the candidates beside each other, and the winner."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from launch.runs.judge import Judged
from launch.runs.judges import Judge
from launch.runs.run import Run
from launch.show.columns import aligned
from nas.analysis.judgement import ACCURACY, HIGH, LOW, judge
from nas.ledger.judged import PREFIX
from nas.search.trust import advice


def judge_lines(
    run: Run, numbers: Sequence[int], judges: Sequence[Judge], outcome: Judged
) -> list[str]:
    """Return what was done, a table of the candidates, and who wins and why.

    Args:
        run: read again after the judges were heard.
        numbers: of the candidates, best in the search first.
        judges: of this call.
        outcome: of this call.
    """
    lines = [f"{outcome.done} judgements added, {outcome.known} were known, in {run.path}"]
    table = run.table()
    judged = [n for n in numbers if n not in outcome.without]
    labels = [judge.label for judge in judges if f"{PREFIX}{judge.label}{ACCURACY}" in table]
    if not labels or not judged:
        return [*lines, "no candidate was judged"]
    rows = {int(row["number"]): row for _, row in table.iterrows() if row["number"] in judged}
    verdict = judge(table, judged)
    shown = [*labels, *([verdict.judge] if verdict.judge and verdict.judge not in labels else [])]
    columns: dict[str, list[str]] = {"trial": [], run.objective: []}
    columns |= {f"{PREFIX}{label}{ACCURACY}": [] for label in shown}
    order = verdict.candidates or judged
    for number in order:
        row = rows[number]
        mark = "*" if number == verdict.winner else ""
        columns["trial"].append(f"{number}{mark}{'!' if number in verdict.flagged else ''}")
        columns[run.objective].append(f"{row[run.objective]:.4g}")
        for label in shown:
            columns[f"{PREFIX}{label}{ACCURACY}"].append(_interval(row, label))
    lines += ["", *aligned(columns, right=["trial", run.objective]), "", *verdict.why]
    first = run.best().number
    if verdict.winner is not None and verdict.winner != first:
        lines.append(f"The search's winner was trial {first}; by this judge it is not.")
    elif verdict.winner is not None:
        lines.append(f"It is the search's winner too ({run.objective}).")
    if outcome.without:
        named = ", ".join(map(str, outcome.without))
        lines.append(f"Not judged, without weights: {named}.")
    lines += [f"  {line}" for line in advice(n for f in verdict.flagged.values() for n in f)]
    if verdict.winner is not None and verdict.winner != first:
        lines.append(
            f"`psinas export {run.path} --trial {verdict.winner} --out {Path('DIR')}` takes it away"
        )
    return lines


def _interval(row: pd.Series, label: str) -> str:
    low, high = (row.get(f"{PREFIX}{label}{end}") for end in (LOW, HIGH))
    value = row[f"{PREFIX}{label}{ACCURACY}"]
    if pd.isna(value):
        return "-"
    return f"{value:.4g}" + (f" [{low:.4g}, {high:.4g}]" if low is not None else "")
