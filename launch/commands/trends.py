"""The command ``psinas trends``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launch.runs.trends import read_models
from launch.runs.trends import trends as find_trends
from launch.show.console import say
from launch.show.view import check_csv, write_view


def trends(
    table: Annotated[
        Path, typer.Argument(metavar="RUN|TABLE.csv", help="A run directory, or one row a model.")
    ],
    adversarial: Annotated[
        str | None, typer.Option(metavar="SCORE", help="By default fgsm_ or pgd_accuracy.")
    ] = None,
    clean: Annotated[
        str | None, typer.Option(metavar="SCORE", help="By default clean_accuracy.")
    ] = None,
    parameters: Annotated[
        str | None, typer.Option(metavar="SCORE", help="By default parameters, where there.")
    ] = None,
    above: Annotated[
        float | None, typer.Option(help="Clean accuracy of the accurate; by default 0.85.")
    ] = None,
    window: Annotated[
        int | None, typer.Option(help="Models of a running average; by default √n.")
    ] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Leave suspicious trials out.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Write the models here, and FILE.png beside it."),
    ] = None,
) -> None:
    """Show how adversarial accuracy goes with clean accuracy and parameters, model by model.

    Example: psinas trends runs/digits --adversarial pgd_accuracy --out trends.csv
    """
    read = read_models(table, adversarial, clean, parameters, trust=trust)
    if out is not None:
        check_csv(out, other_than=table)
    found = find_trends(read, above=above, window=window)
    for line in found.lines:
        say(line)
    if out is not None:
        csv, picture = write_view(out.parent, out.stem, found)
        say(f"models in {csv}, picture in {picture}")
