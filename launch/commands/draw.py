"""The command ``psinas draw``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from launch.runs.run import Run
from launch.runs.subject import read_description
from launch.show.cells import draw_cell
from launch.show.console import say
from launch.show.outputs import check_file
from nas.errors import InputError
from search_spaces import SEARCH_SPACES, Architecture


def draw(
    target: Annotated[
        str,
        typer.Argument(
            metavar="CELL", help="RUN:TRIAL, EXPORT_DIR or SPACE:STRING, as the space writes it."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Ends in .svg or .png.")],
) -> None:
    """Draw the cell of an architecture.

    Example: psinas draw runs/cubuk-experiment2-small:3 --out cell.svg
    """
    check_file(out)
    architecture = _architecture(target)
    try:
        draw_cell(architecture, out)
    except OSError as error:
        raise InputError(f"--out: expected a file to write, got {out}: {error}") from error
    say(f"drawn in {out}")


def _architecture(target: str) -> Architecture:
    """Return the architecture that a command line names.

    Raises:
        InputError: none of the three forms, or no such thing.
    """
    space, _, text = target.partition(":")
    if space in SEARCH_SPACES and text:
        try:
            return SEARCH_SPACES[space]().from_string(text)
        except ValueError as error:
            raise InputError(f"{space}: {error}") from error
    exported = Path(target) / "architecture.json"
    if os.path.exists(exported):  # Path.exists raises where a string is too long for a path
        return _exported(exported)
    place, _, number = target.rpartition(":")
    if place and number.isdigit():
        return Run(place).trial(int(number)).trial.architecture
    spaces = ", ".join(SEARCH_SPACES)
    raise InputError(
        f"expected RUN:TRIAL, EXPORT_DIR or SPACE:STRING (spaces: {spaces}), got {target!r}"
    )


def _exported(path: Path) -> Architecture:
    try:
        return Architecture.from_dict(read_description(path.parent)["architecture"])
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: expected the description of an export, got {error!r}") from error
