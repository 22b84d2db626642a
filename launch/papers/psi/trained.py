"""Tables 1 and 3 and Figures 2, 3, 5, 6 and 7 of the Ψ paper: trained nets, compared.

On the test images that all of them get right (:mod:`nas.analysis.common_correct`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from launch.papers.psi import figures
from launch.papers.psi import printed as paper
from launch.papers.psi.grids import grid_lines, model_name
from launch.papers.psi.measured import Trained, trained_models
from launch.runs.run import Run
from launch.runs.subject import trial_model
from launch.show.reporter import Reporter
from launch.show.view import View
from metrics.susceptibility import drift, sphere_attack
from nas.analysis.correlation import Correlation, pearson, spearman
from nas.data.arrays import prepare_test
from nas.data.datasets import load_test_images
from nas.errors import InputError

DRIFT_INPUTS, DRIFT_RADIUS = 32, 1e-3
FEWEST_MODELS = 4  # of which a correlation has an interval
AT = 0.01  # the radius of Figure 7


def table_1(runs: Sequence[Run], report: Reporter) -> View:
    """Table 1: Ψ̂ of trained ResNets."""
    trained = trained_models(runs[0], report)
    table = trained.table
    table["paper"] = [paper.TABLE_1.get(int(d), math.nan) for d in table["depth"]]
    table["ratio"] = table["psi"] / table["paper"]
    lines = [*trained.about(), "depth  Ψ̂ [95 % interval]          limit     paper    ratio"]
    for row in table.to_dict("records"):
        interval = f"{row['psi']:.4g} [{row['psi_low']:.4g}, {row['psi_high']:.4g}]"
        lines.append(
            f"{row['depth']:5}  {interval:24}  {row['psi_limit']:8.4g}  {row['paper']:6.1f}  "
            f"{row['ratio']:7.3g}{_mark(row)}"
        )
    return View(table, lines, figures.resnets(table))


def figure_2(runs: Sequence[Run], report: Reporter) -> View:
    """Figure 2: how the drift of 32 inputs grows through a trained ResNet."""
    trained = trained_models(runs[0], report)
    row = trained.table.sort_values("depth").iloc[0]
    run = runs[0]
    model = trial_model(run, run.trial(int(row["number"])))
    test = prepare_test(load_test_images(run.config.data), run.config.data)
    x = test.images()[list(trained.common.indices[:DRIFT_INPUTS])]
    draws = torch.Generator().manual_seed(0)
    found = drift(model, x, sphere_attack(model, x, DRIFT_RADIUS, generator=draws))
    table = pd.DataFrame(
        {"state": found.states, "layer": found.layers, "growth": found.growth}
        | {f"input_{i}": column.tolist() for i, column in enumerate(found.distance.T)}
    )
    depth = int(row["depth"])
    lines = [
        f"ResNet-{depth} with a test accuracy of {row['test_accuracy']:.3g}, {len(x)} inputs, "
        f"r = {DRIFT_RADIUS:g}",
        *(
            f"  {state:8} layer {layer:3}  drift x {growth:.4g}"
            for state, layer, growth in zip(found.states, found.layers, found.growth, strict=True)
        ),
        f"λ = ln(growth of the output) / {found.layers[-1]} layers = {found.lyapunov:.3f}; "
        f"slope of ln drift per layer before the head = {found.slope:.3f}",
        f"the paper's ResNet-18 on Food-101: x {paper.RESNET18_GROWTH:g}, "
        f"λ = {paper.RESNET18_LAMBDA:g}",
    ]
    if found.cancelled:
        lines.append(f"{found.cancelled} distances are within rounding")
    return View(table, lines, figures.hidden_states(found, depth))


def figure_3(runs: Sequence[Run], report: Reporter) -> View:
    """Figure 3: Ψ̂ against the radius."""
    trained = trained_models(runs[0], report)
    table = _ladder(trained, trained.psi_at, "psi")
    lines = [*trained.about(), f"{'':14}" + "".join(f"{r:>10.1e}" for r in trained.radii)]
    for name, psi in zip(_names(trained), trained.psi_at, strict=True):
        lines.append(f"{name:14}" + "".join(f"{v:10.4g}" for v in psi))
    spans = [_stable_decades(trained.radii, psi) for psi in trained.psi_at]
    lines.append(
        "radii over which Ψ̂ stays within x/÷ 1.5 of its value at the smallest: "
        f"{min(spans):.1f} to {max(spans):.1f} decades (the paper: about three)"
    )
    picture = figures.over_radii(
        trained.table, trained.radii, trained.psi_at, _names(trained), "Ψ̂", log=True
    )
    return View(table, lines, picture)


def table_3(runs: Sequence[Run], report: Reporter) -> View:
    """Table 3 and Figure 5: Ψ̂ of trained nets over depth and channels."""
    trained = trained_models(runs[0], report)
    table = trained.table
    cells = [(int(d), int(c)) for d, c in zip(table["depth"], table["channels"], strict=True)]
    table["paper"] = [paper.TABLE_3.get(cell, math.nan) for cell in cells]
    table["ratio"] = table["psi"] / table["paper"]
    lines = [
        *trained.about(),
        *grid_lines("Ψ̂, radii 1e-4 to 1e-2", table, "psi", paper.TABLE_3),
        *grid_lines("Limit r → 0", table, "psi_limit", {}),
        *grid_lines("Test accuracy", table, "test_accuracy", {}),
    ]
    return View(table, lines, figures.trained(table))


def figure_6(runs: Sequence[Run], report: Reporter) -> View:
    """Figure 6: post-attack accuracy against the radius."""
    trained = trained_models(runs[0], report)
    table = _ladder(trained, trained.accuracy_at, "post_attack_accuracy")
    lines = [*trained.about(), f"{'':14}" + "".join(f"{r:>9.1e}" for r in trained.radii[6:])]
    for name, accuracy in zip(_names(trained), trained.accuracy_at, strict=True):
        lines.append(f"{name:14}" + "".join(f"{v:9.3f}" for v in accuracy[6:]))
    label = "post-attack accuracy"
    picture = figures.over_radii(
        trained.table, trained.radii, trained.accuracy_at, _names(trained), label, log=False
    )
    return View(table, lines, picture)


def figure_7(runs: Sequence[Run], report: Reporter) -> View:
    """Figure 7: post-attack accuracy at r = 0.01, and where half of it is lost, against Ψ̂.

    And against the mean estimated radius, Ψ̂ beside the logits' margins: Ψ̂ alone says how far they
    move, not how far they may.
    """
    trained = trained_models(runs[0], report)
    table = trained.table
    columns = {
        f"accuracy_at_{r:.1e}": trained.accuracy_at[:, i] for i, r in enumerate(trained.radii)
    }
    table = table.assign(**columns)
    lines = trained.about()
    at = _nearest(trained.radii, AT)
    if len(table) < FEWEST_MODELS:
        raise InputError(
            f"expected at least {FEWEST_MODELS} models for a correlation, got {len(table)}"
        )
    for index in dict.fromkeys([at, _half_lost(trained)]):
        accuracy, radius = trained.accuracy_at[:, index], trained.radii[index]
        lines.append(
            f"r = {radius:.3g}: post-attack accuracy {accuracy.min():.3f} to {accuracy.max():.3f} "
            f"over {len(table)} models; its correlation"
        )
        for what, values in (
            ("Ψ̂", table["psi"]),
            ("ln Ψ̂", np.log(table["psi"])),
            ("the mean estimated radius", table["radius_mean"]),
            ("its logarithm", np.log(table["radius_mean"])),
        ):
            straight, ranks = pearson(values, accuracy), spearman(values, accuracy)
            lines.append(f"  with {what:25} {_interval(straight)}, of ranks {_interval(ranks)}")
    lines.append(f"the paper: {paper.CORRELATION} at r = {AT:g} (Food-101)")
    shown = [
        (column, pearson(table[column], trained.accuracy_at[:, at]))
        for column in ("psi", "radius_mean")
    ]
    accuracy, radius = trained.accuracy_at[:, at], trained.radii[at]
    return View(table, lines, figures.correlation(trained.table, accuracy, radius, shown))


def _ladder(trained: Trained, values: np.ndarray, name: str) -> pd.DataFrame:
    """Return one row a model and radius."""
    frames = [
        pd.DataFrame({**row, "radius": trained.radii, name: line})
        for row, line in zip(
            trained.table[["number", *trained.decisions]].to_dict("records"), values, strict=True
        )
    ]
    return pd.concat(frames, ignore_index=True)


def _names(trained: Trained) -> list[str]:
    rows = trained.table[trained.decisions].to_dict("records")
    return [model_name(row) for row in rows]


def _stable_decades(radii: list[float], psi: np.ndarray) -> float:
    """Return how many decades of radii pass before Ψ̂ first leaves x/÷ 1.5 of its first value."""
    off = np.abs(np.log(psi / psi[0])) > math.log(1.5)
    end = int(off.argmax()) if off.any() else len(radii)
    return math.log10(radii[end - 1] / radii[0])


def _half_lost(trained: Trained) -> int:
    """Return the index of the radius at which the mean accuracy is nearest to one half."""
    return int(np.abs(trained.accuracy_at.mean(axis=0) - 0.5).argmin())


def _nearest(radii: list[float], radius: float) -> int:
    return int(np.abs(np.log(np.array(radii) / radius)).argmin())


def _interval(found: Correlation) -> str:
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _mark(row: Mapping[Any, Any]) -> str:
    return "  saturated" if row["psi_saturated"] else ""
