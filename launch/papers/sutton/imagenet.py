"""ImageNet's row of Table 1 (Sutton et al. 2023): published nets, one class against all others."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from launch.papers.sutton.measured import metric_of
from launch.papers.sutton.pairs import comparison
from launch.papers.sutton.printed import IMAGENET
from launch.papers.sutton.violins import violins
from launch.runs.run import Run
from launch.show.reporter import Reporter
from launch.show.style import finished, panels
from launch.show.view import View
from nas.errors import InputError

IMAGES = 20_480


def imagenet(runs: Sequence[Run], report: Reporter) -> View:
    """Return the scores of the nets as they are, beside the paper's.

    Raises:
        InputError: no complete trial.
    """
    run = runs[0]
    metric, table = metric_of(run), run.table()
    table = table[table["status"] == "complete"]
    if table.empty:
        raise InputError(f"expected complete trials in {run.path}, got none")
    names = ["accuracy", "adversarial", *(f"random_{d:g}" for d in metric.deltas)]
    columns = ["clean_accuracy", *(f"{metric.prefix}_{name}" for name in names[1:])]
    ours = {
        f"ours, {row['model']}": {n: 100 * row[c] for n, c in zip(names, columns, strict=True)}
        for row in table.to_dict("records")
    }
    lines = comparison(ours, IMAGENET, metric.deltas)
    if run.config.space.get("weights") is None:
        lines.append(
            "Weights are random (space.weights is null): this shows that it runs, and says nothing "
            "of trained nets."
        )
    lines.append(
        f"The paper: {IMAGES} validation images of all 1,000 classes, 224 x 224; here "
        f"{run.config.data.name}, at most {metric.limit or 'all'} images."
    )
    figure, (axes,) = panels(1)
    groups = {"attack": [row["adversarial"] for row in ours.values()]}
    for delta in metric.deltas:
        groups[f"noise, δ={delta:g}"] = [row[f"random_{delta:g}"] for row in ours.values()]
    violins(axes, groups, "images broken, % (one dot a net)")
    shown = pd.DataFrame(
        [{"model": name.removeprefix("ours, "), **row} for name, row in ours.items()]
    )
    return View(shown, lines, finished(figure))
