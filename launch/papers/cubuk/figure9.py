"""Figure 9 of Cubuk et al. 2017: the children of a search under attack."""

from __future__ import annotations

from collections.abc import Sequence

from launch.runs.run import Run
from launch.runs.trends import CLEAN, PARAMETERS, read_models, trends
from launch.show.reporter import Reporter
from launch.show.view import View

REMARKS = {
    PARAMETERS: " (the paper: hardly follows it)",
    CLEAN: " (the paper: strongly follows it)",
    "accurate": "(the paper, clean > 85 %: range 22 points, standard deviation 2.6 points)",
}


def figure_9(runs: Sequence[Run], report: Reporter) -> View:
    """Return adversarial accuracy against clean accuracy and parameters, one child a trial."""
    return trends(read_models(runs[0].path), remarks=REMARKS)
