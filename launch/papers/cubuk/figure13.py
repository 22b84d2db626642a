"""Figure 13 of Cubuk et al. 2017: densities of logit differences of published ImageNet nets."""

from __future__ import annotations

from collections.abc import Sequence

from launch.papers.cubuk.densities import density_table, draw_density, tail_lines, tails_of
from launch.papers.cubuk.figure1 import what_it_is_of
from launch.papers.cubuk.nets import nets
from launch.papers.cubuk.printed import TAILS
from launch.runs.run import Run
from launch.show.reporter import Reporter
from launch.show.style import colours, finished, panels
from launch.show.view import View


def figure_13(runs: Sequence[Run], report: Reporter) -> View:
    """Return the densities of the run's nets, one panel a rank."""
    found = nets(runs[0])
    tails = tails_of(found, report, ("test",))
    lines = [
        *tail_lines(tails),
        "The paper: published nets on ImageNet; the density of Δ_1j goes as Δ^(j-2) in all.",
        *what_it_is_of(runs[0]),
    ]
    figure, axes = panels(len(TAILS), width=14)
    for panel, rank in zip(axes, TAILS, strict=True):
        of_rank = [tail for tail in tails if tail.rank == rank]
        for colour, tail in zip(colours(len(of_rank)), of_rank, strict=True):
            draw_density(panel, tail, colour, tail.name)
        panel.set_title(f"Δ_1{rank}", fontsize=10)
    return View(density_table(tails), lines, finished(figure, *axes))
