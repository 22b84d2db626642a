"""The command ``psinas compare``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from launch.show.compared import compared_lines
from launch.show.printed import Format, print_as
from nas.analysis import compare as find_difference
from nas.analysis import load_table
from nas.analysis.sides import common_objectives
from nas.analysis.trial_table import runs_in, unique_names


class By(StrEnum):
    """What ``psinas compare`` pairs by."""

    architecture = "architecture"
    seed = "seed"
    none = "none"


def compare(
    a: Annotated[Path, typer.Argument(metavar="RUN", help="A run, or a folder of runs.")],
    b: Annotated[Path, typer.Argument(metavar="RUN", help="What to compare it with.")],
    score: Annotated[
        str | None, typer.Option(metavar="SCORE", help="By default every objective of both.")
    ] = None,
    by: Annotated[
        By | None, typer.Option(help="What belongs together; by default what both sides share.")
    ] = None,
    format: Annotated[Format, typer.Option(help="How to print.")] = Format.table,
) -> None:
    """Say whether one run is better than another, with a 95 % interval.

    A folder of runs is a sampler under several seeds: what its runs had found after equally many
    trials is compared then.

    Example: psinas compare runs/tpe runs/random --score pgd_accuracy
    """
    tables = [load_table(*runs_in(side)) for side in (a, b)]
    scores = [score] if score is not None else list(common_objectives(*tables))
    how = None if by is None else by.value
    found = [find_difference(*tables, score=name, by=how) for name in scores]
    names = unique_names([a, b])
    rows = pd.concat([one.frame() for one in found], ignore_index=True)
    rows.insert(0, "run_a", names[0])
    rows.insert(1, "run_b", names[1])
    print_as(format, rows, [line for one in found for line in compared_lines(names, one)])
