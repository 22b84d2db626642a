"""The commands about tables: ``psinas table-search`` and ``psinas children``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from launch.show.console import say


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
    from launch.papers.outcome import check_csv
    from launch.runs import table_search as searching

    asked = searching.request(
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
    for line in searching.table_search(asked, workers=count, out=out, tell=say)[1]:
        say(line)
    if out is not None:
        say(f"curves in {out}, picture in {out.with_suffix('.png')}")


def children(
    table: Annotated[
        Path, typer.Argument(metavar="RUN|TABLE.csv", help="A run directory, or one row a child.")
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
        int | None, typer.Option(help="Children of a running average; by default √n.")
    ] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Leave suspicious trials out.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Write the children here, and FILE.png beside it."),
    ] = None,
) -> None:
    """Show how adversarial accuracy goes with clean accuracy and parameters, child by child.

    Example: psinas children runs/digits --adversarial pgd_accuracy --out children.csv
    """
    from launch.papers.cubuk.figure9 import outcome, read_children
    from launch.papers.outcome import check_csv, write_outcome

    read = read_children(table, adversarial, clean, parameters, trust=trust)
    if out is not None:
        check_csv(out, other_than=table)
    found = outcome(read, above=above, window=window)
    for line in found.lines:
        say(line)
    if out is not None:
        csv, picture = write_outcome(out.parent, out.stem, found)
        say(f"children in {csv}, picture in {picture}")
