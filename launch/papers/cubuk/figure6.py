"""Figure 6 of Cubuk et al. 2017: the density of Δ_12 on MNIST with and without entropy term."""

from __future__ import annotations

from collections.abc import Sequence

from launch.papers.cubuk.densities import (
    Tail,
    below,
    density_table,
    draw_density,
    interval,
    tail_lines,
    tails_of,
)
from launch.papers.cubuk.nets import nets
from launch.papers.cubuk.printed import ENTROPY
from launch.runs.run import Run
from launch.show.reporter import Reporter
from launch.show.style import colours, finished, panels
from launch.show.view import View
from nas.errors import InputError

RANK = 2
PLAIN, ENTROPIC = "plain", f"λ = {ENTROPY['mnist']:g}"


def figure_6(runs: Sequence[Run], report: Reporter) -> View:
    """Return the densities of Δ_12 of each net trained plainly and with the entropy term.

    Nets of the search that were trained on adversarial images are left out.

    Raises:
        InputError: no net that was trained both ways.
    """
    found = [net for net in nets(runs[0]) if net.training in (PLAIN, ENTROPIC)]
    tails = [tail for tail in tails_of(found, report, ("test",)) if tail.rank == RANK]
    pairs = _pairs(tails)
    if not pairs:
        trainings = sorted({net.training for net in nets(runs[0])})
        raise InputError(
            f"expected a net trained {PLAIN} and with {ENTROPIC} in {runs[0].path}, got trainings "
            f"{', '.join(trainings)}"
        )
    lines = [
        *tail_lines([tail for pair in pairs for tail in pair]),
        *map(_said, pairs),
        "The term is meant to make small differences rarer; the paper's exponent is 0 with it too.",
    ]
    figure, axes = panels(len(pairs), width=6 * len(pairs))
    for panel, pair in zip(axes, pairs, strict=True):
        for colour, tail in zip(colours(2), pair, strict=True):
            value = interval(tail.straight).partition(" ")[0]
            draw_density(panel, tail, colour, f"{tail.training}, exponent {value}")
        panel.set(title=pair[0].name, xlabel="Δ_12, logits")
    table = density_table([tail for pair in pairs for tail in pair])
    return View(table, lines, finished(figure, *axes))


def _pairs(tails: Sequence[Tail]) -> list[tuple[Tail, Tail]]:
    by_training = {
        training: {tail.name: tail for tail in tails if tail.training == training}
        for training in (PLAIN, ENTROPIC)
    }
    plain, entropic = by_training[PLAIN], by_training[ENTROPIC]
    return [(plain[name], entropic[name]) for name in plain if name in entropic]


def _said(pair: tuple[Tail, Tail]) -> str:
    plain, entropic = pair
    return (
        f"{plain.name}: Δ_12 < 1 of {below(plain, 1)} of the images, with the entropy term of "
        f"{below(entropic, 1)}."
    )
