"""Tables 1 and 2 and Figures 2 to 4 of Peck et al. 2017: bounds of LeNets, and attacks on them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from launch.papers.peck.measured import LIMIT, Ends, Measured, measured
from launch.papers.peck.pictures import picture
from launch.papers.peck.printed import COLUMNS, PIXELS, Printed, printed_for
from launch.runs.run import Run
from launch.show.columns import aligned
from launch.show.reporter import Reporter
from launch.show.view import View
from metrics.bounds.gains.form import MODES

IMAGES = 1000
DATA = ("mnist", "cifar10")
CAFFE: dict[str, list[int]] = {"filters": [20], "units": [500], "relu": [False]}
NAMES = {
    "paper": "the paper's formulas",
    "certified": "certified",
    "tight": "tight",
}


def bounds(runs: Sequence[Run], report: Reporter) -> View:
    """Return what was measured of every net of the runs, beside the paper's rows.

    The table has one row a net and kind of number: ``kind`` is ``upper bound`` or ``lower bound``,
    ``of`` says whose, ``violations`` counts attacks below a lower bound; mean, median, sd, min and
    max are plain L2 of pixels in [0, 1], and of ``d`` pixels.
    """
    found = [(run, net) for run in runs for net in measured(run, report)]
    table = pd.DataFrame([row for _, net in found for row in rows(net)])
    lines = []
    for run, net in found:
        paper = printed_for(run.config.data.name) if net.recipe == "plain" else None
        lines += ["", *_of_net(net, paper)]
    lines += ["", *_differences(runs)]
    return View(table, lines[1:], picture([net for _, net in found]))


def rows(net: Measured) -> Iterator[dict[str, Any]]:
    """Return the rows of the table: attacks, then the bounds of each mode."""
    own = {"search": net.run, "number": net.number, "training": net.recipe, "d": net.pixels}
    for what, values in (("fgsm", net.attacks), ("fgsm as printed", net.steps)):
        some = [values[i] for i in net.attacked]
        yield {**own, "kind": "upper bound", "of": what, "images": len(some), **_summary(some)}
    for mode in MODES:
        ratios = net.ratios(mode)
        yield {
            **own,
            "kind": "lower bound",
            "of": mode,
            "images": net.images,
            **_summary(net.bounds[mode]),
            "certified": net.certified[mode],
            "violations": net.violations(mode),
            "least_log10_ratio": min(ratios, default=math.nan),
            "median_log10_ratio": float(np.median(ratios)) if ratios else math.nan,
        }


def _of_net(net: Measured, paper: Printed | None) -> list[str]:
    right = f"right {net.right} of {net.tested} test images ({net.right / net.tested:.2%})"
    theirs = f"; the paper: {paper.accuracy}" if paper else ""
    left = len(net.attacked)
    lines = [
        f"{net.run}, trial {net.number}, {net.recipe} training: {right}{theirs}.",
        "Upper bounds: norms of the smallest fast gradient sign perturbations with ε up to "
        f"{LIMIT * PIXELS:.0f}/{PIXELS},",
        f"of the {left} of {net.images} images that one changes the net's answer to. Lower bounds: "
        "no shorter one does.",
        *_numbers(net, paper),
        "The paper divides by d. Its Table 1 is of pixels in 0...255; of Table 2 it does not say.",
        *_violations(net),
        *_tighter(net),
        *_layers(net),
    ]
    return lines + (_ends(net.ends) if net.ends else [])


def _numbers(net: Measured, paper: Printed | None) -> list[str]:
    d = net.pixels
    attacks = [net.attacks[i] for i in net.attacked]
    steps = [net.steps[i] for i in net.attacked]
    own = {mode: net.bounds[mode] for mode in MODES}
    shown = {
        "upper bound: attack": _row(attacks, 1),
        "upper bound: attack, ε√(non-zero)": _row(steps, 1),
        **{f"lower bound: {NAMES[mode]}": _row(own[mode], 1) for mode in MODES},
        f"attack, ε√(non-zero) / {d}, 0...255": _row(steps, PIXELS / d),
    }
    if paper:
        shown[f"  the paper, Table 1, / {d}"] = paper.fgs
    for mode in MODES:
        shown[f"{NAMES[mode]} / {d}"] = _row(own[mode], 1 / d)
    if paper:
        shown[f"  the paper, Table 2, / {d}"] = paper.bounds
    columns: dict[str, list[str]] = {"L2, of pixels in [0, 1]": list(shown)}
    for i, name in enumerate(COLUMNS):
        columns[name] = [f"{row[i]:.4g}" for row in shown.values()]
    return aligned(columns, right=COLUMNS)


def _row(values: Sequence[float], unit: float) -> tuple[float, ...]:
    return tuple(unit * value for value in _summary(values).values())


def _summary(values: Sequence[float]) -> dict[str, float]:
    """Return mean, median, standard deviation, least and largest; NaN of nothing."""
    if not len(values):
        return dict.fromkeys(COLUMNS, math.nan)
    v = np.asarray(values)
    sd = v.std(ddof=1) if len(v) > 1 else math.nan
    return dict(
        zip(COLUMNS, map(float, (v.mean(), np.median(v), sd, v.min(), v.max())), strict=True)
    )


def _violations(net: Measured) -> list[str]:
    lines = []
    for mode in MODES:
        ratios = net.ratios(mode)
        count = net.violations(mode)
        least = (
            f"the least log10(attack / bound) is {min(ratios):.3f}" if ratios else "none attacked"
        )
        status = "" if net.certified[mode] else " (this mode is not certified for this net)"
        wrong = " WRONG: a bound or an attack is in error." if count and not status else ""
        lines.append(
            f"Attacks below the lower bound, {NAMES[mode]}: {count} of {len(net.attacked)}"
            f"{status}; {least}.{wrong}"
        )
    return lines


def _tighter(net: Measured) -> list[str]:
    paper = np.asarray(net.bounds["paper"])
    some = paper > 0
    if not some.any():
        return []
    times = {
        mode: float(np.median(np.asarray(net.bounds[mode])[some] / paper[some]))
        for mode in MODES[1:]
    }
    told = ", ".join(f"{NAMES[mode]} {value:.3g}" for mode, value in times.items())
    gaps = ", ".join(
        f"{NAMES[mode]} 10^{float(np.median(net.ratios(mode))):.2f}" for mode in MODES
    ) if net.attacked else "n/a"  # fmt: skip
    return [
        f"Bounds larger than by the paper's formulas, median factor: {told}.",
        f"Attack over bound, median: {gaps}.",
    ]


def _layers(net: Measured) -> list[str]:
    """Return which formula each layer used, from the logits to the images, a mode after another."""
    columns: dict[str, list[str]] = {
        name: [] for name in ("mode", "layer", "formula", "gain", "status")
    }
    for mode in MODES:
        for layer in net.layers[mode]:
            if layer.formula == "1":
                continue
            status = layer.source if layer.valid else f"{layer.source}, NOT VALID"
            cells = (mode, layer.name, layer.formula, f"{layer.gain:.4g}",
                     f"{status}; {layer.note}" if layer.note else status)  # fmt: skip
            for name, cell in zip(columns, cells, strict=True):
                columns[name].append(cell)
    return aligned(columns, right=["gain"])


def _ends(ends: Ends) -> list[str]:
    n = len(ends.lower)
    chain, lower, upper = (np.asarray(v) for v in (ends.chain, ends.lower, ends.upper))
    epsilon, right = ends.epsilon, upper > 0
    known = right & np.isfinite(upper)
    middle = float(np.median(upper[known] / lower[known])) if known.any() else math.nan
    certified, by_layers = int((lower > epsilon).sum()), int((chain > epsilon).sum())
    broken = int((upper <= epsilon).sum())
    return [
        f"In {ends.norm}, of the first {n} test images, wrong ones ({int((~right).sum())}) as 0:",
        f"  lower bound, median: layer by layer {np.median(chain):.4g}, the better of it and "
        f"linear relaxation {np.median(lower):.4g} (the latter's for {ends.linear:.0%} of images)",
        f"  upper bound, median of the smallest attacks found: {np.median(upper):.4g}; upper over "
        f"lower, median: {middle:.3g}",
        f"  at ε = {epsilon:.3g}: certified layer by layer {by_layers} of {n}, with linear "
        f"relaxation {certified}; an attack breaks {broken}; not known {n - certified - broken}",
    ]


def _differences(runs: Sequence[Run]) -> list[str]:
    """Say where the searches are not the paper's experiment."""
    apart = ["Caffe's solver (here SGD with Nesterov momentum, one-cycle)"]
    for run in runs:
        config = run.config
        own = []
        if config.space["name"] != "lenet":
            own.append(f"nets of {config.space['name']}")
        else:
            for name, caffes in CAFFE.items():
                value = list(config.space.get(name, caffes))
                if value != caffes:
                    own.append(f"{name} {', '.join(map(str, value))} (Caffe's: {caffes[0]})")
        if config.data.name not in DATA:
            own.append(f"images of {config.data.name}")
        own.append(f"{config.recipe.epochs} epochs")
        if config.recipe.adversary != "none":
            own.append(f"training on {config.recipe.adversary} (the paper: plain)")
        limit = config.data.limit
        if limit.train is not None:
            own.append(f"at most {limit.train} training images (the paper: all)")
        if limit.test != IMAGES:
            own.append(f"bounds of {limit.test or 'all'} test images")
        apart.append(f"{config.name}: {', '.join(own)}")
    return [f"Not the paper's: {'; '.join(apart)}."]
