"""Accuracy over ε of several trainings: a table, lines to print, what changed, and a picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from launch.papers.cubuk.nets import Measured, Net
from launch.show.columns import aligned
from launch.show.style import colours
from metrics.robustness.accuracy import standard_error
from metrics.universality import EPSILONS
from nas.trial.recipe import Recipe

OWN = "its own"  # gradients: a white-box attack


@dataclass(frozen=True)
class Accuracies:
    """The accuracy of a net under one attack.

    Attributes:
        net: which.
        attack: its name in the paper.
        gradients: whose they are: ``its own``, or the title of the net that the images are from.
        epsilons, accuracies: the first epsilon is 0: without an attack.
        total: images.
    """

    net: Net
    attack: str
    gradients: str
    epsilons: tuple[float, ...]
    accuracies: tuple[float, ...]
    total: int

    def at(self, epsilon: float) -> tuple[float, float]:
        """Return the accuracy at one of the epsilons, and its standard error."""
        accuracy = self.accuracies[self.epsilons.index(epsilon)]
        return accuracy, standard_error(accuracy, self.total)


@dataclass(frozen=True)
class Change:
    """What two nets differ in, the second of which has it.

    Attributes:
        what: in words.
        first, second: of the same architecture, repeat and otherwise the same recipe.
    """

    what: str
    first: Net
    second: Net


def with_round(epsilons: Iterable[float]) -> tuple[float, ...]:
    """Return the epsilons of an error curve and some round ones, ascending."""
    return tuple(sorted({*EPSILONS, *epsilons}))


def of_measured(found: Iterable[Measured]) -> list[Accuracies]:
    """Return white-box accuracies, epsilon 0 among them."""
    return [
        Accuracies(
            c.net, c.attack, OWN, (0.0, *c.epsilons), (c.clean, *c.accuracies), c.total
        )
        for c in found
    ]  # fmt: skip


def accuracy_table(found: Iterable[Accuracies]) -> pd.DataFrame:
    """Return one row a net, attack, owner of the gradients and epsilon."""
    return pd.DataFrame(
        {
            "search": curve.net.run.config.name,
            "number": curve.net.row.number,
            "net": curve.net.name,
            "training": curve.net.training,
            "repeat": curve.net.row.trial.repeat,
            "attack": curve.attack,
            "gradients": curve.gradients,
            "epsilon": epsilon,
            "accuracy": curve.at(epsilon)[0],
            "standard_error": curve.at(epsilon)[1],
            "images": curve.total,
        }
        for curve in found
        for epsilon in curve.epsilons
    )


def accuracy_lines(
    found: Sequence[Accuracies], epsilons: Sequence[float], label: Callable[[float], str]
) -> list[str]:
    """Return a table of one attack after the other: a net a line, an epsilon a column.

    Args:
        found: of any attacks.
        epsilons: columns, beside epsilon 0; a dash where a net was not attacked at one.
        label: an epsilon as text.
    """
    lines: list[str] = []
    black = any(curve.gradients != OWN for curve in found)
    for attack in dict.fromkeys(curve.attack for curve in found):
        rows = [curve for curve in found if curve.attack == attack]
        columns = {f"{attack}, accuracy in %, ε": [title(curve.net) for curve in rows]}
        if black:
            columns["gradients"] = [curve.gradients for curve in rows]
        shown = {label(e): [_percent(curve, e) for curve in rows] for e in (0.0, *epsilons)}
        lines += [*aligned({**columns, **shown}, right=list(shown)), ""]
    return lines


def title(net: Net) -> str:
    """Return a net's title, its repeat told where it is not the first."""
    repeat = net.row.trial.repeat
    return net.title + (f", repeat {repeat}" if repeat else "")


def _percent(curve: Accuracies, epsilon: float) -> str:
    if epsilon not in curve.epsilons:
        return "-"
    accuracy, error = curve.at(epsilon)
    return f"{100 * accuracy:.1f} ± {100 * error:.1f}"


def entropy_changes(nets: Sequence[Net]) -> list[Change]:
    """Return the pairs of nets of which one was trained with the entropy term, one without."""
    return _changes(nets, "entropy_weight", 0.0, lambda recipe: f"λ = {recipe.entropy_weight:g}")


def adversarial_changes(nets: Sequence[Net]) -> list[Change]:
    """Return the pairs of which one was trained on adversarial images, one on plain ones."""
    return _changes(nets, "adversary", "none", lambda recipe: f"{recipe.adversary} training")


def _changes(
    nets: Sequence[Net], setting: str, without: Any, what: Callable[[Recipe], str]
) -> list[Change]:
    found = []
    for second in nets:
        trial = second.row.trial
        before = replace(trial, recipe=replace(trial.recipe, **{setting: without}))
        if before != trial:
            found += [
                Change(f"{what(trial.recipe)} beside {first.training}", first, second)
                for first in nets
                if first.row.trial == before
            ]
    return found


def _compared(
    changes: Sequence[Change], found: Sequence[Accuracies]
) -> list[tuple[Change, Accuracies, Accuracies]]:
    """Return each change with the accuracies before and after it under one attack."""
    return [
        (change, before, after)
        for change in changes
        for after in found
        if after.net is change.second
        for before in found
        if before.net is change.first
        and (before.attack, before.gradients) == (after.attack, after.gradients)
    ]


def change_lines(
    changes: Sequence[Change],
    found: Sequence[Accuracies],
    epsilons: Sequence[float],
    label: Callable[[float], str],
) -> list[str]:
    """Return a table: a change, net, attack and owner of the gradients a line, in points.

    The standard error is that of two sets of images; of the same images it is smaller.
    """
    rows = _compared(changes, found)
    if not rows:
        return []
    repeated = any(change.second.row.trial.repeat for change, _, _ in rows)
    columns: dict[str, list[str]] = {
        "change of the accuracy, points": [change.what for change, _, _ in rows],
        "net": [change.second.name for change, _, _ in rows],
    }
    if repeated:
        columns["repeat"] = [str(change.second.row.trial.repeat) for change, _, _ in rows]
    columns["attack"] = [after.attack for _, _, after in rows]
    if any(after.gradients != OWN for _, _, after in rows):
        columns["gradients"] = [after.gradients for _, _, after in rows]
    shown = {
        label(e): [_points(before, after, e) for _, before, after in rows] for e in (0.0, *epsilons)
    }
    return aligned({**columns, **shown}, right=list(shown))


def _points(before: Accuracies, after: Accuracies, epsilon: float) -> str:
    if epsilon not in before.epsilons or epsilon not in after.epsilons:
        return "-"
    (a, s), (b, t) = before.at(epsilon), after.at(epsilon)
    return f"{100 * (b - a):+.1f} ± {100 * math.hypot(s, t):.1f}"


def verdict(
    what: str,
    changes: Sequence[Change],
    found: Sequence[Accuracies],
    epsilons: Sequence[float],
) -> str:
    """Return one line: by how much accuracy changed, and how often by over two standard errors.

    A comparison is of two nets under one attack at one epsilon above 0.
    """
    pairs = [
        (before.at(epsilon), after.at(epsilon))
        for _, before, after in _compared(changes, found)
        for epsilon in epsilons
    ]
    if not pairs:
        return f"{what}: nothing to compare."
    rises = [100 * (b - a) for (a, _), (b, _) in pairs]
    sure = [abs(b - a) > 2 * math.hypot(s, t) for (a, s), (b, t) in pairs]
    rose, fell = (
        sum(clear and sign * rise > 0 for clear, rise in zip(sure, rises, strict=True))
        for sign in (1, -1)
    )
    return (
        f"{what}: {min(rises):+.1f} to {max(rises):+.1f} points of accuracy, median "
        f"{median(rises):+.1f}; of {len(pairs)} comparisons (nets, attacks, ε) it rose in {rose} "
        f"and fell in {fell} by more than two standard errors."
    )


def draw_accuracies(
    axes: Axes, found: Sequence[Accuracies], labels: Sequence[str], scale: float, x: str
) -> None:
    """Draw accuracy over epsilon, white box as lines, black box dashed.

    Args:
        axes: to draw on.
        found: curves.
        labels: of each.
        scale: what epsilon is multiplied by.
        x: name of the axis.
    """
    trainings = list(dict.fromkeys(curve.net.title for curve in found))
    of = dict(zip(trainings, colours(len(trainings)), strict=True))
    for curve, label in zip(found, labels, strict=True):
        axes.plot(
            [scale * epsilon for epsilon in curve.epsilons],
            [100 * accuracy for accuracy in curve.accuracies],
            "o-" if curve.gradients == OWN else "o--",
            color=of[curve.net.title],
            label=label,
            markersize=3,
            linewidth=1,
        )
    axes.set(xlabel=x, ylabel="test accuracy, %", ylim=(0, 100))
