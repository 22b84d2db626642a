"""Training on random noise against plain training (Sutton et al. 2023, section 7.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from launch.papers.sutton.measured import Measured, measured, medians, metric_of
from launch.papers.sutton.pairs import differences, number_text, table_row
from launch.runs.run import Run
from launch.show.columns import aligned
from launch.show.reporter import Reporter
from launch.show.style import colours, finished, panels
from launch.show.view import View
from metrics.stability.input_noise import INPUT_NOISE, noise_length
from nas.trial.recipe import Recipe


def noise_training(runs: Sequence[Run], report: Reporter) -> View:
    """Return what each kind and strength of noise in training changes, medians over problems."""
    run = runs[0]
    found = measured(run, report)
    deltas = metric_of(run).deltas
    recipes = {row.number: run.trial(row.number).trial.recipe for row in found}
    table = pd.DataFrame(
        [{**table_row(row), **strength(recipes[row.number], row.pixels)} for row in found]
    )
    kinds: dict[tuple[str, float], list[Measured]] = {}
    for row in found:
        if row.part == "test":
            recipe = recipes[row.number]
            noisy = recipe.adversary != "none"
            kinds.setdefault((recipe.adversary, recipe.epsilon if noisy else 0.0), []).append(row)
    rows = {key: medians(group) for key, group in kinds.items()}
    pixels = found[0].pixels
    columns = {
        "training": [adversary for adversary, _ in rows],
        "half side": [f"{c:g}" if c else "-" for _, c in rows],
        "mean L2": [f"{noise_length(c, pixels):.2f}" if c else "-" for _, c in rows],
        "problems": [str(len(group)) for group in kinds.values()],
        "accuracy": [number_text(row["accuracy"]) for row in rows.values()],
        "adversarial": [number_text(row["adversarial"]) for row in rows.values()],
        **{f"δ={d:g}": [number_text(r[f"random_{d:g}"]) for r in rows.values()] for d in deltas},
        "size": [number_text(row["l2_mean"]) for row in rows.values()],
    }
    lines = [
        "Test images, medians over problems, shares in %; half side of the cube in pixels of "
        "[0, 1], and the root mean square L2 length of the noise, of both shapes:",
        *aligned(columns, right=list(columns)[1:]),
        *_what_it_changes(rows),
        "The paper's strengths are lost; these are our choice.",
        *differences(run),
    ]
    return View(table, lines, _picture(rows, deltas))


def strength(recipe: Recipe, pixels: int) -> dict[str, Any]:
    """Return the noise that a recipe trains on, in pixels and as a length."""
    noisy = recipe.adversary in INPUT_NOISE
    return {
        "training": recipe.adversary,
        "half_side": recipe.epsilon if noisy else 0.0,
        "noise_l2": noise_length(recipe.epsilon, pixels) if noisy else 0.0,
    }


def _what_it_changes(rows: dict[tuple[str, float], dict[str, float]]) -> list[str]:
    plain = next((row for (adversary, _), row in rows.items() if adversary == "none"), None)
    noisy = {key: row for key, row in rows.items() if key[0] in INPUT_NOISE}
    if plain is None or not noisy:
        return []
    sizes = [row["l2_mean"] / plain["l2_mean"] for row in noisy.values()]
    shares = [row["adversarial"] - plain["adversarial"] for row in noisy.values()]
    return [
        f"Against plain training the smallest attacks are {min(sizes):.2f} to {max(sizes):.2f} "
        f"times as long, and {min(shares):+.1f} to {max(shares):+.1f} points more images have one "
        "(the paper: noise in training does not remove the attacks)."
    ]


def _picture(rows: dict[tuple[str, float], dict[str, float]], deltas: Sequence[float]) -> Figure:
    figure, (left, right) = panels(2, width=12)
    names = [f"{a.removeprefix('noise-')} {c:g}" if c else "plain" for a, c in rows]
    places = np.arange(len(rows))
    scores = {"adversarial": "an attack", **{f"random_{d:g}": f"noise, δ={d:g}" for d in deltas}}
    for colour, (name, what) in zip(colours(len(scores)), scores.items(), strict=True):
        left.plot(places, [row[name] for row in rows.values()], "o-", color=colour, label=what)
    left.set_ylabel("images broken, %, median over problems")
    right.bar(places, [row["l2_mean"] for row in rows.values()], color="#6baed6")
    right.set_ylabel("mean L2 length of the smallest attacks")
    for axes in (left, right):
        axes.set_xticks(places, names, rotation=30, ha="right")
    return finished(figure, left)
