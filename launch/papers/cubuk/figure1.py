"""Figure 1 of Cubuk et al. 2017: adversarial error over ε of published ImageNet nets, FGSM."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from launch.papers.cubuk.curves import draw_errors, error_table, law_lines
from launch.papers.cubuk.nets import Measured, exponent, measured, nets
from launch.papers.cubuk.printed import IMAGENET, IMAGENET_END
from launch.runs.run import Run
from launch.show.columns import aligned
from launch.show.reporter import Reporter
from launch.show.style import finished, panels
from launch.show.view import View
from metrics.attacks import FGSM
from metrics.universality import PowerLaw, fit_counts

STEPS = (*np.geomspace(0.01, 4, 18).tolist(), 6.0, 8.0, 16.0, 32.0, 64.0)
"""ε, in units of 1/255."""


def figure_1(runs: Sequence[Run], report: Reporter) -> View:
    """Return the errors of the run's nets on test images, with their exponents."""
    epsilons = [step / 255 for step in STEPS]
    found = measured(nets(runs[0]), report, {"FGSM": FGSM()}, epsilons=epsilons)
    lines = [
        *law_lines(found, IMAGENET),
        "",
        *_small_lines(found),
        *what_it_is_of(runs[0]),
    ]
    figure, (axes,) = panels(1, width=8)
    draw_errors(axes, found, [curve.net.name for curve in found], "pixels of [0, 1]")
    axes.axvline(IMAGENET_END, color="black", linewidth=0.5, linestyle=":")
    return View(error_table(found), lines, finished(figure, axes))


def small(curve: Measured) -> PowerLaw:
    """Return the law of the errors up to the paper's largest fitted epsilon alone."""
    within = sum(epsilon <= IMAGENET_END for epsilon in curve.epsilons)
    return fit_counts(
        curve.epsilons[:within], curve.counts[:within], curve.total, plateau=curve.clean or 1.0
    )


def _small_lines(found: Sequence[Measured]) -> list[str]:
    laws = [small(curve) for curve in found]
    columns = {
        f"ε < {255 * IMAGENET_END:g}/255": [curve.net.name for curve in found],
        "B": [exponent(law) for law in laws],
        "line": ["" if not law.events else f"{law.line:.2f}" for law in laws],
        "the paper": [IMAGENET["FGSM"] for _ in laws],
        "images": [str(law.events) for law in laws],
    }
    return aligned(columns, right=("line", "images"))


def what_it_is_of(run: Run) -> list[str]:
    """Return what the nets and images are, and what weights that nobody published do not say."""
    lines = [f"Here: {run.config.data.name}; the paper: ImageNet's 50,000 validation images."]
    if run.config.space.get("weights") is None:
        epochs = run.config.recipe.epochs
        weights = f"trained here, {epochs} epochs" if epochs else "random"
        lines.append(
            f"Weights are {weights} (space.weights is null): this shows that it runs, and says "
            "nothing of published nets."
        )
    return lines
