"""Figure 12 of Cubuk et al. 2017: the entropy term on a wide ResNet, CIFAR-10, white and black box.

A black-box attack shows a net the adversarial images of another one, which began elsewhere: of its
own training, and of the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from launch.papers.cubuk.accuracies import (
    Accuracies,
    accuracy_lines,
    accuracy_table,
    change_lines,
    draw_accuracies,
    entropy_changes,
    of_measured,
    title,
    verdict,
    with_round,
)
from launch.papers.cubuk.curves import law_lines
from launch.papers.cubuk.nets import ATTACKS, SEED, Net, measured, nets
from launch.papers.cubuk.printed import CIFAR
from launch.runs.run import Run
from launch.show.reporter import Reporter
from launch.show.style import finished, panels
from launch.show.view import View
from metrics import Transfer
from metrics.attacks import Attack
from metrics.robustness.pointwise import pointwise_curve
from metrics.robustness.scores import name_of, settings_of

UNDER = {name: ATTACKS[name] for name in ("FGSM", "step l.l.", "PGD-20")}
PRINTED = tuple(step / 255 for step in (0.5, 1, 2, 4, 8))
TRANSFERRED = PRINTED[2:]  # smaller steps hardly matter to another net


def figure_12(runs: Sequence[Run], report: Reporter) -> View:
    """Return accuracy over epsilon of nets with and without the entropy term.

    Every net is attacked by its own gradients; those of repeat 0 also by those of the others. The
    table has one row a net, attack, owner of the gradients and epsilon.
    """
    trained = nets(runs[0])
    errors = measured(trained, report, UNDER, epsilons=with_round(PRINTED))
    white = of_measured(errors)
    black = transferred(trained, report)
    changes = entropy_changes(trained)
    lines = [
        *accuracy_lines([*white, *black], PRINTED, _label),
        *change_lines(changes, [*white, *black], PRINTED, _label),
        "",
        *law_lines(errors, CIFAR),
        "",
        verdict("The entropy term, white box", changes, white, PRINTED),
        verdict("The entropy term, black box", changes, black, TRANSFERRED),
        "The paper: λ = 3.0 helps a wide ResNet in the white box, not in the black box; B is that "
        "of its ResNet-32.",
        "ε in 255ths. Errors are of the images; FGSM, step l.l. and the black box at each ε on its "
        "own, PGD by its own gradients within ε.",
    ]
    figure, axes = panels(len(UNDER), width=5 * len(UNDER))
    for panel, attack in zip(axes, UNDER, strict=True):
        curves = [c for c in (*white, *black) if c.attack == attack]
        labels = [_of(curve) for curve in curves]
        draw_accuracies(panel, curves, labels, 255, "ε, 255ths")
        panel.set(title=attack, xlim=(0, 33))
    return View(accuracy_table([*white, *black]), lines, finished(figure, axes[-1]))


def transferred(trained: Sequence[Net], report: Reporter) -> list[Accuracies]:
    """Return the accuracy of nets of repeat 0 on the adversarial images of later repeats' nets."""
    found = []
    for net in (n for n in trained if n.row.trial.repeat == 0):
        sources = [n for n in trained if n.row.trial.repeat > 0 and n.name == net.name]
        for source in sources:
            for name, attack in UNDER.items():
                settings = {
                    "attack": [name_of(attack), settings_of(attack)],
                    "source": source.row.trial.key,
                    "epsilons": list(TRANSFERRED),
                }
                kept = net.kept("transfer", settings, _Shown(net, source, attack))
                found.append(
                    Accuracies(
                        net,
                        name,
                        title(source),
                        (0.0, *TRANSFERRED),
                        tuple(kept["accuracies"]),
                        kept["total"],
                    )
                )
            report.say(f"{net.title}: shown the adversarial images of {title(source)}")
    return found


@dataclass(frozen=True)
class _Shown:
    net: Net
    source: Net
    attack: Attack

    def __call__(self) -> dict[str, Any]:
        split = self.net.images("test")
        x, y = split.images(), split.labels
        attack = Transfer(source=self.source.model(), attack=self.attack)
        generator = torch.Generator(y.device).manual_seed(SEED)
        found = pointwise_curve(
            self.net.model(), x, y, attack, (0.0, *TRANSFERRED), generator=generator
        )
        return {"accuracies": list(found.accuracies), "total": len(y)}


def _label(epsilon: float) -> str:
    return f"{255 * epsilon:.3g}"


def _of(curve: Accuracies) -> str:
    return f"{curve.net.training} {curve.net.row.trial.repeat}, gradients: {curve.gradients}"
