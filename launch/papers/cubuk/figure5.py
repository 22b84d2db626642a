"""Figure 5 of Cubuk et al. 2017: accuracy over ε on MNIST, four trainings of two nets."""

from __future__ import annotations

from collections.abc import Sequence

from launch.papers.cubuk.accuracies import (
    accuracy_lines,
    accuracy_table,
    adversarial_changes,
    change_lines,
    draw_accuracies,
    entropy_changes,
    of_measured,
    verdict,
    with_round,
)
from launch.papers.cubuk.curves import law_lines
from launch.papers.cubuk.nets import ATTACKS, measured, nets
from launch.papers.cubuk.printed import ANY_NET
from launch.runs.run import Run
from launch.show.reporter import Reporter
from launch.show.style import finished, panels
from launch.show.view import View

UNDER = {name: ATTACKS[name] for name in ("step l.l.", "PGD-20")}
PRINTED = (0.05, 0.1, 0.2, 0.3)
DRAWN = (*PRINTED, 0.15, 0.25, 0.35, 0.4, 0.45)


def figure_5(runs: Sequence[Run], report: Reporter) -> View:
    """Return accuracy over epsilon with and without entropy term and adversarial training.

    The table has one row a net, training, attack and epsilon.
    """
    trained = nets(runs[0])
    errors = measured(trained, report, UNDER, epsilons=with_round(DRAWN))
    found = of_measured(errors)
    entropy, adversarial = entropy_changes(trained), adversarial_changes(trained)
    lines = [
        *accuracy_lines(found, PRINTED, _label),
        *change_lines([*entropy, *adversarial], found, PRINTED, _label),
        "",
        *law_lines(errors, ANY_NET),
        "",
        verdict("The entropy term, white box", entropy, found, PRINTED),
        verdict("Step l.l. training, white box", adversarial, found, PRINTED),
        "The paper: λ = 4.5 helps in the white box. "
        + _epsilons([net.row.trial.recipe.epsilon for net in trained]),
        "Errors are of the images, each net being trained once; step l.l. at each ε on its own, "
        "PGD within ε.",
    ]
    names = list(dict.fromkeys(net.name for net in trained))
    figure, axes = panels(len(names) * len(UNDER), width=5 * len(names) * len(UNDER))
    places = [(name, attack) for name in names for attack in UNDER]
    for panel, (name, attack) in zip(axes, places, strict=True):
        curves = [c for c in found if c.net.name == name and c.attack == attack]
        labels = [curve.net.training for curve in curves]
        draw_accuracies(panel, curves, labels, 1, "ε, pixels of [0, 1]")
        panel.set_title(f"{name}, {attack}", fontsize=10)
    return View(accuracy_table(found), lines, finished(figure, *axes))


def _label(epsilon: float) -> str:
    return f"{epsilon:g}"


def _epsilons(epsilons: Sequence[float]) -> str:
    ours = ", ".join(f"{epsilon:g}" for epsilon in sorted(set(epsilons)))
    return f"ε of the step l.l. training is not the paper's, which is not known; ours: {ours}."
