"""The command ``psinas report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launch.show.console import say
from nas.errors import InputError


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="By default report.html of the first run.")
    ] = None,
    scores: Annotated[
        str | None, typer.Option(metavar="A,B", help="The front's two; by default the objectives.")
    ] = None,
    models: Annotated[
        bool,
        typer.Option("--models/--no-models", help="Attack and draw the front's models."),
    ] = True,
    seconds: Annotated[
        float, typer.Option(metavar="S", help="That the attacks may take, in all.")
    ] = 3.0,
) -> None:
    """Write one self-contained HTML page about a search, finished or not, or about several.

    Example: psinas report runs/digits
    """
    if not seconds >= 0:
        raise InputError(f"--seconds: expected a number >= 0, got {seconds:g}")
    from launch.report.contents import write_report  # slow: scipy

    chosen = scores.split(",") if scores else []
    where = write_report(runs, out, chosen, seconds=seconds if models else None)
    say(f"report in {where}")
