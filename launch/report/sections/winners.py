"""The trials worth a look: the best of the first objective, flags and intervals beside them."""

from __future__ import annotations

import numpy as np

from launch.report.findings import RUN, Findings
from launch.report.numbers import told, with_interval
from launch.report.page import Section, Table
from launch.report.sampling import front_of_two

TOP = 12
COLUMNS = 6  # scores beside the objectives


def make(found: Findings) -> Section | None:
    """Return a table of the best trials; None where none is complete."""
    if len(found.complete) == 0 or not found.scores:
        return None
    score = next(iter(found.objectives))
    if score not in found.complete:
        return None
    best = found.complete.sort_values(
        score, ascending=found.direction(score) == "min", kind="stable", na_position="last"
    ).head(TOP)
    on: set[tuple[str, int]] = set()
    if found.two is not None:
        a, b = found.two
        columns = [found.complete[n].to_numpy(float, na_value=np.nan) for n in (a, b)]
        mask = front_of_two(columns[0], columns[1], (found.direction(a), found.direction(b)))
        rows = found.complete[mask]
        on = set(zip(rows[RUN].astype(str), rows["number"].astype(int), strict=True))
    scores = found.scores[: COLUMNS + len(found.objectives)]
    first_scores = len(found.objectives)
    several = len(found.runs) > 1
    cells = []
    for row in best.to_dict("records"):
        key = str(row[RUN]), int(row["number"])
        mark = "on the front" if key in on else ""
        cells.append(
            [
                str(key[1]),
                *([key[0]] if several else []),
                *(with_interval(row, n) for n in scores[:first_scores]),
                *(told(row.get(n), n) for n in found.decisions[:8]),
                *(with_interval(row, n) for n in scores[first_scores:]),
                mark,
                ", ".join(found.flags.get(key, [])) or "none",
            ]
        )
    columns_shown = [
        "trial",
        *(["run"] if several else []),
        *scores[:first_scores],
        *found.decisions[:8],
        *scores[first_scores:],
        "front",
        "flags",
    ]
    numeric = frozenset({0, *(i for i, n in enumerate(columns_shown) if n in scores)})
    lead = (
        f"The best {len(best)} of {len(found.complete):,} complete trials by {score}, suspicious "
        "ones among them; 95 % intervals in brackets."
    )
    caption = f"Best first by {score}."
    return Section(
        "winners", "The best trials", lead, [Table(caption, columns_shown, cells, numeric)]
    )
