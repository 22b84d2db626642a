"""Figure 7 of Cubuk et al. 2017: adversarial accuracy over epsilon of architectures and trainings.

Of the baseline's cell trained on plain images and on step l.l. images, and of the winners of
Experiments 1 and 2: what the training gives, and what the search gives beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from launch.papers.cubuk.table1 import PAPER, PAPER_EPSILON
from launch.papers.cubuk.winners import Winner, retrained_winner
from launch.runs.retrained import table_lines
from launch.runs.run import Run
from launch.show.columns import aligned
from launch.show.reporter import Reporter
from launch.show.style import GREY, colours, finished, panels
from launch.show.view import View
from metrics import FGSM, StepLL, accuracy_curve, pointwise_curve
from nas.files import read_kept, write_whole
from nas.seeds import derive_seed, settings_hash

ADVERSARIAL = {"adversary": "step-ll"}
"""What the baseline is retrained with once more."""

STEPS = (0, 1, 2, 4, 8, 12, 16, 24, 32)
"""Epsilons times 255; the recipes' own joins them."""

BASELINES = 2  # nets of the baseline's cell, which come first
ATTACKS = {"step_ll": "step l.l.", "fgsm": "FGSM", "pgd": "PGD"}
MEASURED = "over-epsilon.json"


@dataclass(frozen=True)
class Measured:
    """A net under attacks of growing epsilon.

    Attributes:
        net: it.
        epsilons: ascending.
        accuracies, errors: attack -> test accuracy and its standard error at each epsilon. Of FGSM
            and step l.l. each epsilon was attacked on its own; of PGD what breaks at one is broken
            at all larger ones.
    """

    net: Winner
    epsilons: tuple[float, ...]
    accuracies: Mapping[str, Sequence[float]]
    errors: Mapping[str, Sequence[float]]


def figure_7(runs: Sequence[Run], report: Reporter) -> View:
    """Return accuracy over epsilon of four nets, the first search being the baseline's.

    The table has one row a net, attack and epsilon.

    Raises:
        InputError: a winner that has not been retrained.
    """
    baseline, *others = runs
    nets = [
        retrained_winner(baseline),
        retrained_winner(baseline, ADVERSARIAL),
        *map(retrained_winner, others),
    ]
    found = []
    for place, net in enumerate(nets, start=1):
        found.append(measured(net))
        report.say(
            f"[{place}/{len(nets)}] {net.name}: attacked at {len(found[-1].epsilons)} epsilons"
        )
    lines = [*table_lines([net.row for net in nets], PAPER), ""]
    for attack, title in ATTACKS.items():
        lines += [*_over_epsilon(found, attack, title), ""]
    lines += [_rises(row) for row in found]
    lines += _same_cell(nets)
    pgd = nets[0].trial.trial.recipe.judge()
    lines += [
        "FGSM and step l.l. are made anew at each epsilon, so their accuracy can rise with it; "
        "images that are wrong without an attack count as broken.",
        f"PGD: {pgd.steps} steps of {pgd.step_length / pgd.epsilon:.3g} epsilon; what breaks at an "
        "epsilon is broken at all larger ones.",
    ]
    rows = [row for each in found for row in _rows(each)]
    return View(pd.DataFrame(rows), lines, _picture(found))


def measured(net: Winner) -> Measured:
    """Return a net's accuracy over epsilon, kept in the directory of its retraining."""
    recipe = net.trial.trial.recipe
    epsilons = tuple(sorted({*(step / 255 for step in STEPS), recipe.epsilon}))
    pgd = recipe.judge()
    key = settings_hash(
        {
            "trial": net.trial.trial.key,
            "images": net.row.images,
            "epsilons": epsilons,
            "pgd": [pgd.steps, pgd.step_length],
        }
    )
    kept = read_kept(net.path / MEASURED, key)
    if kept is None:
        kept = {"key": key, **_measure(net, epsilons)}
        text = json.dumps(kept) + "\n"
        write_whole(net.path / MEASURED, lambda partial: partial.write_text(text, encoding="utf-8"))
    return Measured(net, epsilons, kept["accuracies"], kept["errors"])


def _measure(net: Winner, epsilons: Sequence[float]) -> dict[str, Any]:
    model, (x, y) = net.model(), net.test_images()
    generator = torch.Generator(device=y.device).manual_seed(derive_seed(0, "figure 7"))
    judge = net.trial.trial.recipe.judge()
    curves = {
        "step_ll": pointwise_curve(model, x, y, StepLL(), epsilons),
        "fgsm": pointwise_curve(model, x, y, FGSM(), epsilons),
        "pgd": accuracy_curve(model, x, y, judge, epsilons, generator=generator),
    }
    return {
        "accuracies": {name: list(curve.accuracies) for name, curve in curves.items()},
        "errors": {name: list(curve.stderrs) for name, curve in curves.items()},
    }


def _rows(found: Measured) -> list[dict[str, Any]]:
    recipe = found.net.trial.trial.recipe
    return [
        {
            "net": found.net.name,
            "trained_on": recipe.adversary,
            "attack": attack,
            "epsilon": epsilon,
            "epsilon_255": round(255 * epsilon, 6),
            "accuracy": accuracy,
            "standard_error": error,
            "images": found.net.row.images,
        }
        for attack in ATTACKS
        for epsilon, accuracy, error in zip(
            found.epsilons, found.accuracies[attack], found.errors[attack], strict=True
        )
    ]


def _over_epsilon(found: Sequence[Measured], attack: str, title: str) -> list[str]:
    """Return a table of one attack: a net a line, an epsilon a column, the paper's one value."""
    epsilons = sorted({epsilon for row in found for epsilon in row.epsilons})
    best = PAPER[-1]
    columns: dict[str, list[str]] = {
        f"{title}, accuracy in %, epsilon 255 x": [best.model, *(row.net.name for row in found)]
    }
    for epsilon in epsilons:
        theirs = {0.0: best.clean, PAPER_EPSILON: best.white[attack]}.get(epsilon)
        columns[f"{255 * epsilon:.3g}"] = [
            _percent(theirs),
            *(_at(r, attack, epsilon) for r in found),
        ]
    return aligned(columns, right=list(columns)[1:])


def _at(found: Measured, attack: str, epsilon: float) -> str:
    if epsilon not in found.epsilons:
        return "-"
    place = found.epsilons.index(epsilon)
    return f"{_percent(found.accuracies[attack][place])} ± {100 * found.errors[attack][place]:.1f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _rises(found: Measured) -> str:
    """Say how far a net is from falling with epsilon under step l.l.: trained on it, it may not."""
    values = found.accuracies["step_ll"]
    rise, low, high = max(
        (100 * (values[j] - values[i]), i, j) for j in range(1, len(values)) for i in range(j)
    )
    if rise <= 0:
        return f"{found.net.name}: step l.l. accuracy never rises with epsilon"
    a, b = (255 * found.epsilons[place] for place in (low, high))
    return (
        f"{found.net.name}: step l.l. accuracy rises by up to {rise:.1f} points, from epsilon "
        f"{a:.3g}/255 to {b:.3g}/255"
    )


def _same_cell(nets: Sequence[Winner]) -> list[str]:
    """Say of which experiments the winner is the baseline's: the search then tells nothing."""
    cell = nets[0].trial.trial.architecture.hash
    return [
        f"{net.name}: its cell is the baseline's, so only training tells them apart"
        for net in nets[BASELINES:]
        if net.trial.trial.architecture.hash == cell
    ]


def _picture(found: Sequence[Measured]) -> Figure:
    figure, axes = panels(len(ATTACKS), width=5 * len(ATTACKS))
    for place, (attack, title) in zip(axes, ATTACKS.items(), strict=True):
        for i, (colour, row) in enumerate(zip(colours(len(found)), found, strict=True)):
            _curve(place, row, attack, colour, "o--" if i < BASELINES else "o-")
        theirs = 100 * (PAPER[-1].white[attack] or 0)
        place.plot(255 * PAPER_EPSILON, theirs, "x", color=GREY,
                   label=f"{PAPER[-1].model}, CIFAR-10")  # fmt: skip
        place.set(xlabel="epsilon, 255 x", ylim=(0, 100), title=title)
    axes[0].set_ylabel("test accuracy, %")
    return finished(figure, axes[-1])


def _curve(axes: Axes, found: Measured, attack: str, colour: Any, look: str) -> None:
    x = [255 * epsilon for epsilon in found.epsilons]
    y = [100 * value for value in found.accuracies[attack]]
    errors = [100 * value for value in found.errors[attack]]
    axes.errorbar(x, y, errors, fmt=look, color=colour, label=found.net.name, markersize=3)
