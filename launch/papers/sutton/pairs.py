"""Tables 1 and 5 to 22 of Sutton et al. 2023: pairs of classes, attacked and shaken."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from launch.papers.sutton.measured import Measured, measured, medians, metric_of, row_of
from launch.papers.sutton.printed import Printed, printed_for
from launch.papers.sutton.violins import paradox
from launch.runs.run import Run
from launch.show.columns import aligned
from launch.show.reporter import Reporter
from launch.show.view import View
from metrics.stability.theory.caps import linear_prediction

NO_BETTER = 0.6  # accuracy on two classes
PAPER_RECIPE = {"epochs": 100, "batch_size": 128, "learning_rate": 0.1, "filters": 64}


def pairs(runs: Sequence[Run], report: Reporter) -> View:
    """Return one row a problem and part, its medians, and the paper's rows beside them."""
    run = runs[0]
    found = measured(run, report)
    table = pd.DataFrame([table_row(row) for row in found])
    test = [row for row in found if row.part == "test"]
    train = [row for row in found if row.part == "train"]
    deltas = metric_of(run).deltas
    lines = ["In %, test images; sizes are L2 lengths of the smallest attacks, mean (sd):"]
    lines += problem_lines(test, deltas)
    ours = {
        f"ours, train, median of {len(train)}": medians(train),
        f"ours, test, median of {len(test)}": medians(test),
    }
    lines += ["", *comparison(ours, printed_for(run.config.data.name), deltas)]
    lines += ["", *paradox_lines(test, deltas), *collapsed(test), *differences(run)]
    return View(table, lines, paradox(test, deltas))


def table_row(found: Measured) -> dict[str, Any]:
    """Return a row of the table: shares in percent, their counts and 95 % Wilson intervals.

    And what a plane would let one expect.
    """
    counts = {"accuracy": found.accuracy, "adversarial": found.adversarial}
    counts |= {f"random_{d:g}": share for d, share in found.random.items()}
    return {
        "number": found.number,
        **found.decisions,
        "problem": found.problem,
        "part": found.part,
        **row_of(found),
        **{f"{name}_count": share.count for name, share in counts.items()},
        **{f"{name}_of": share.of for name, share in counts.items()},
        **{f"{name}_low": 100 * share.interval[0] for name, share in counts.items()},
        **{f"{name}_high": 100 * share.interval[1] for name, share in counts.items()},
        **{f"random_{d:g}_of_a_plane": 100 * of_a_plane(found, d) for d in found.random},
        "zero_gradients": found.zero_gradients,
    }


def of_a_plane(found: Measured, delta: float) -> float:
    """Return the share that a plane at the attack's distance would give: 1 - (1 - Q_n(1/δ))^N."""
    return float(linear_prediction(found.pixels, delta, found.draws))


def problem_lines(found: Sequence[Measured], deltas: Sequence[float]) -> list[str]:
    """Return one line a problem."""
    rows = [row_of(row) for row in found]
    columns = {"problem": [row.problem for row in found]}
    columns |= {
        "accuracy": [number_text(row["accuracy"]) for row in rows],
        "adversarial": [number_text(row["adversarial"]) for row in rows],
        **{f"δ={d:g}": [number_text(row[f"random_{d:g}"]) for row in rows] for d in deltas},
        "size": [f"{row['l2_mean']:.2f} ({row['l2_sd']:.2f})" for row in rows],
    }
    return aligned(columns, right=list(columns)[1:])


def comparison(
    ours: dict[str, dict[str, float]], paper: Sequence[Printed], deltas: Sequence[float]
) -> list[str]:
    """Return our rows and the paper's."""
    theirs = {
        f"the paper, {row.what}": {
            "accuracy": row.accuracy,
            "adversarial": row.adversarial,
            **{f"random_{d:g}": v for d, v in row.random.items()},
        }
        for row in paper
    }
    rows = {**ours, **theirs}
    names = ["accuracy", "adversarial", *(f"random_{d:g}" for d in deltas)]
    heads = ["accuracy", "adversarial", *(f"δ={d:g}" for d in deltas)]
    columns = {"": list(rows)}
    for name, head in zip(names, heads, strict=True):
        columns[head] = [number_text(row.get(name, math.nan)) for row in rows.values()]
    return aligned(columns, right=heads)


def paradox_lines(found: Sequence[Measured], deltas: Sequence[float]) -> list[str]:
    """Say what the attack and what noise does, over all problems, and what a plane predicts."""
    attacked = sum(row.adversarial.count for row in found)
    right = sum(row.adversarial.of for row in found)
    draws = found[0].draws
    lines = [f"An attack on the gradient's line breaks {attacked} of {right} right images."]
    for delta in deltas:
        hit = sum(row.random[delta].count for row in found)
        plane = 100 * max(of_a_plane(row, delta) for row in found)
        expected = f"a plane at the attack's distance: {plane:.2g} %"
        if hit:
            share = f"{100 * hit / attacked:.2f} %"
            lines.append(f"  one of {draws} draws of δ={delta:g} times it {hit} of these, {share} "
                         f"({expected})")  # fmt: skip
        elif attacked:
            lines.append(
                f"  none of {draws} draws of δ={delta:g} times it any of these: for each, "
                f"p <= 3/{draws} = {3 / draws:.2g} a draw (95 %), which is not 0 ({expected})"
            )
    lines.append(
        "Shares far above a plane's say that the boundary bends, or lies nearer than this one "
        "gradient found: the attack's length is an upper bound on its distance."
    )
    return lines


def collapsed(found: Sequence[Measured]) -> list[str]:
    """Name the problems of which a net learned nothing: it gives every image one answer."""
    names = [row.problem for row in found if row.accuracy.value < NO_BETTER]
    if not names:
        return []
    return [
        f"No better than guessing, and so without attacks: {', '.join(names)}; such a net says "
        "nothing of stability."
    ]


def differences(run: Run) -> list[str]:
    """Say where the search is not the paper's experiment."""
    config = run.config
    recipe = config.recipe
    own = {name: getattr(recipe, name) for name in ("epochs", "batch_size", "learning_rate")}
    filters = config.space.get("filters", [64])
    apart = [
        f"{name.replace('_', ' ')} {own[name]:g} (the paper: {PAPER_RECIPE[name]:g})"
        for name in own
        if own[name] != PAPER_RECIPE[name]
    ]
    if config.space["name"] != "vgg-lite":
        apart.append(f"nets of {config.space['name']} (the paper: a VGG)")
    elif list(filters) != [PAPER_RECIPE["filters"]]:
        apart.append(f"{', '.join(map(str, filters))} filters in the first block (the paper: 64)")
    if recipe.gradient_clip is not None:
        apart.append(f"gradients clipped at {recipe.gradient_clip:g}")
    limit = config.data.limit.train
    if limit is not None:
        apart.append(f"at most {limit} training images (the paper: all)")
    most = metric_of(run).limit
    if most is not None:
        apart.append(f"susceptibilities of the first {most} images (the paper: of all)")
    return [f"Not the paper's: {'; '.join(apart)}."] if apart else []


def number_text(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.2f}"
