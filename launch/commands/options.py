"""Arguments and options that several commands have."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Lay a value over the configuration."),
]
Address = Annotated[str | None, typer.Option(help="A running Ray cluster: auto or HOST:PORT.")]
Reuse = Annotated[
    list[Path] | None,
    typer.Option(
        "--reuse",
        metavar="RUN",
        help="Take the scores of equal trials from this run; may be given several times.",
    ),
]
TrialOption = Annotated[int | None, typer.Option(help="The number of the trial.")]
ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="EXPORT_DIR, RUN:TRIAL or pkg.module:callable.")
]
DataOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="The dataset; an export's own by default.")
]


class Part(StrEnum):
    """Which images of a dataset are asked about."""

    test = "test"
    validation = "validation"


PartOption = Annotated[Part, typer.Option("--split", help="Which images.")]
