"""The command ``psinas table-search``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from launch.runs.table_search import request
from launch.runs.table_search import table_search as compare
from launch.show.console import say
from launch.show.reporter import Reporter
from launch.show.view import check_csv


def table_search(
    table: Annotated[
        Path, typer.Argument(metavar="TABLE.csv", help="One row an architecture, with its scores.")
    ],
    space: Annotated[
        str,
        typer.Option(help="The search space, or YAML: '{name: resnet, depth: [18, 34]}'."),
    ],
    objective: Annotated[
        list[str],
        typer.Option(metavar="COLUMN", help="COLUMN or COLUMN:min; several: hypervolume."),
    ],
    samplers: Annotated[
        str,
        typer.Option(
            metavar="A,B",
            help="Names, or YAML: '[random, {name: tpe, startup_trials: 20}]'.",
        ),
    ] = "random,evolution,local-search,predictor",
    budget: Annotated[int, typer.Option(min=1, help="Queries of one search.")] = 100,
    seeds: Annotated[int, typer.Option(min=1, help="Searches with each sampler.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Decides all searches.")] = 0,
    column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the architectures; found by default.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; all cores by default.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Write the curves here, and FILE.png beside it."),
    ] = None,
) -> None:
    """Compare samplers on a table of architectures that somebody has trained.

    Example: psinas table-search table.csv --space nasbench201 --objective accuracy --seeds 100
    """
    asked = request(
        table,
        space=space,
        objectives=objective,
        samplers=samplers,
        budget=budget,
        seeds=seeds,
        seed=seed,
        column=column,
    )
    if out is not None:
        check_csv(out, other_than=table)
    count = workers or os.cpu_count() or 1
    for line in compare(asked, workers=count, out=out, report=Reporter())[1]:
        say(line)
    if out is not None:
        say(f"curves in {out}, picture in {out.with_suffix('.png')}")
