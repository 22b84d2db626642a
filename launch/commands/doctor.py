"""The command ``psinas doctor``."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from launch.commands.options import Address, Assignments
from launch.config.config import load_config
from launch.runs.doctor import examine, lines_of
from launch.show.console import say
from nas.errors import InputError

REFUSED = 2  # the exit code where a search would be refused


class Format(StrEnum):
    """How ``psinas doctor`` prints."""

    text = "text"
    json = "json"


def doctor(
    source: Annotated[
        str | None,
        typer.Argument(metavar="[PRESET|CONFIG.yaml]", help="Also whether this search can run."),
    ] = None,
    assignments: Assignments = None,
    address: Address = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="The run directory, which every node should share; by default runs/<name>.",
        ),
    ] = None,
    format: Annotated[Format, typer.Option(help="How to print.")] = Format.text,
) -> None:
    """Say whether searches can run: versions, devices, data, disk, and the nodes of a cluster.

    Exits with 2 where a search would be refused.

    Example: psinas doctor fashion-mnist-grid --address auto --out /shared/runs/grid
    """
    if source is None and assignments:
        raise InputError("--set: expected a preset or a CONFIG.yaml beside it, got none")
    config = None if source is None else load_config(source, assignments or [])
    run = out or Path("runs") / ("" if config is None else config.name)
    examined = examine(config, run=run, address=address)
    if format is Format.json:
        print(json.dumps(examined.to_dict(), indent=2))
    else:
        for line in lines_of(examined):
            say(line)
    if examined.faults:
        sys.exit(REFUSED)
