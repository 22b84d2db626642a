"""Figure 11 of Cubuk et al. 2017: adversarial error over ε of a ResNet on CIFAR-10."""

from __future__ import annotations

from collections.abc import Sequence

from launch.papers.cubuk.curves import draw_errors, error_table, law_lines
from launch.papers.cubuk.nets import measured, nets
from launch.papers.cubuk.printed import CIFAR
from launch.runs.run import Run
from launch.show.reporter import Reporter
from launch.show.style import finished, panels
from launch.show.view import View


def figure_11(runs: Sequence[Run], report: Reporter) -> View:
    """Return the errors of the run's nets on test images, under the attacks of Figure 2."""
    found = measured(nets(runs[0]), report)
    lines = [
        *law_lines(found, CIFAR),
        "The paper: B 0.99 for a ResNet-32 on CIFAR-10 under FGSM.",
    ]
    figure, axes = panels(2, width=11)
    parts = {
        "L infinity": [curve for curve in found if curve.attack != "L2-FGSM"],
        "L2": [curve for curve in found if curve.attack == "L2-FGSM"],
    }
    for panel, (title, curves) in zip(axes, parts.items(), strict=True):
        labels = [f"{curve.net.name}, {curve.attack}" for curve in curves]
        draw_errors(panel, curves, labels, "Euclidean" if title == "L2" else "pixels of [0, 1]")
        panel.set_title(title, fontsize=10)
    return View(error_table(found), lines, finished(figure, *axes))
