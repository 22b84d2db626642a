"""The command ``psinas report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launch.show.console import say


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="By default report.html of the first run.")
    ] = None,
    scores: Annotated[
        str | None, typer.Option(metavar="A,B", help="The front's two; by default the objectives.")
    ] = None,
) -> None:
    """Write one self-contained HTML page about a search, finished or not, or about several.

    Example: psinas report runs/digits
    """
    from launch.report.contents import write_report  # slow: scipy

    chosen = scores.split(",") if scores else []
    where = write_report(runs, out, chosen)
    say(f"report in {where}")
