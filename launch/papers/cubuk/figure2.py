"""Figure 2 of Cubuk et al. 2017: adversarial error over ε of plain nets on MNIST, four attacks."""

from __future__ import annotations

from collections.abc import Sequence

from launch.papers.cubuk.curves import draw_errors, error_table, law_lines
from launch.papers.cubuk.nets import measured, nets
from launch.papers.cubuk.printed import MNIST, SHUFFLED
from launch.runs.run import Run
from launch.show.reporter import Reporter
from launch.show.style import finished, panels
from launch.show.view import View

ALL_LEARNED = (
    "Every shuffled label is learned: training has moved all margins away from 0, where the law of "
    "small errors is; fewer epochs leave some."
)


def figure_2(runs: Sequence[Run], report: Reporter) -> View:
    """Return the errors of the first run's nets on test images, of the second's on its own.

    The second run's net has learned shuffled labels by heart, which mean nothing elsewhere. Once it
    has learned all of them, training goes on until no small margin is left, and no law either.
    """
    plain, shuffled = runs
    found = measured(nets(plain), report)
    by_heart = measured(nets(shuffled), report, part="train")
    table = error_table([*found, *by_heart])
    lines = [
        *law_lines(found, MNIST),
        "",
        *law_lines(by_heart, SHUFFLED),
        *[ALL_LEARNED for c in by_heart[:1] if c.clean == 1],
        "The paper: B between 0.9 and 1.3 for FGSM, L2-FGSM and PGD, whatever the net, and between "
        "1.8 and 2.5 for step l.l.",
    ]
    figure, axes = panels(3, width=16)
    parts = {
        "L infinity, test images": [c for c in found if c.attack != "L2-FGSM"],
        "L2, test images": [c for c in found if c.attack == "L2-FGSM"],
        "shuffled labels, training images": [c for c in by_heart if c.attack != "L2-FGSM"],
    }
    for panel, (title, curves) in zip(axes, parts.items(), strict=True):
        labels = [f"{c.net.name}, {c.attack}" for c in curves]
        unit = "Euclidean" if title.startswith("L2") else "pixels of [0, 1]"
        draw_errors(panel, curves, labels, unit)
        panel.set_title(title, fontsize=10)
    return View(table, lines, finished(figure, *axes))
