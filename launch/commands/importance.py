"""The command ``psinas importance``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from launch.show.importances import importance_lines
from launch.show.printed import Format, print_as
from nas.analysis import importance as find_importance
from nas.analysis import load_table
from nas.analysis.trial_table import runs_in


class Method(StrEnum):
    """How ``psinas importance`` judges."""

    ped_anova = "ped-anova"
    fanova = "fanova"


def importance(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Runs, or folders of them.")],
    score: Annotated[
        str | None, typer.Option(metavar="SCORE", help="By default the first objective.")
    ] = None,
    method: Annotated[Method, typer.Option(help="How to judge.")] = Method.ped_anova,
    resamples: Annotated[int, typer.Option(min=0, help="Draws behind the intervals.")] = 200,
    format: Annotated[Format, typer.Option(help="How to print.")] = Format.table,
) -> None:
    """Show which decisions made the difference, each with a 95 % interval.

    Importance goes with a decision among the trials that there are; it proves no cause.

    Example: psinas importance runs/digits --score pgd_accuracy
    """
    table = load_table(*(run for place in runs for run in runs_in(place)))
    found = find_importance(table, score, method=method.value, resamples=resamples)
    print_as(format, found, importance_lines(found))
