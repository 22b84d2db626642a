"""The command ``psinas bracket``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from launch.commands.options import Address, DataOption, ModelArgument, Part, PartOption
from launch.config.values import fractions
from launch.runs.anywhere import anywhere
from launch.runs.bracketed import bracket_model
from launch.show.console import say
from launch.show.view import check_csv, write_view
from nas.errors import InputError


class Norm(StrEnum):
    """How a perturbation is measured."""

    linf = "linf"
    l2 = "l2"


class Mode(StrEnum):
    """Which formulas bound the layers."""

    certified = "certified"
    tight = "tight"


def bracket(
    target: ModelArgument,
    data: DataOption = None,
    norm: Annotated[Norm, typer.Option(help="How a perturbation is measured.")] = Norm.linf,
    epsilon: Annotated[
        str | None,
        typer.Option(help="Radius of the shares, such as 8/255; in L infinity the recipe's."),
    ] = None,
    mode: Annotated[Mode, typer.Option(help="Which formulas bound the layers.")] = Mode.tight,
    linear: Annotated[
        bool | None,
        typer.Option(
            "--linear/--no-linear",
            help="Also bound by linear relaxation, up to seconds an image; by default of nets for "
            "which it is cheap.",
        ),
    ] = None,
    budget: Annotated[int, typer.Option(min=20, help="Passes of the attacks, an image.")] = 200,
    part: PartOption = Part.test,
    limit: Annotated[int, typer.Option(min=1, help="At most so many images.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of random starts.")] = 0,
    layers: Annotated[
        bool, typer.Option("--layers", help="Also say what each layer does to the bound.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Write the images here, and FILE.png beside it."),
    ] = None,
    address: Address = None,
) -> None:
    """Bound the smallest perturbation of each image from both sides: proved, and found.

    Example: psinas bracket runs/digits/best --limit 100 --out bracket.csv
    """
    if out is not None:
        check_csv(out, other_than=Path(target))
    arguments = {
        "target": target,
        "data": data,
        "norm": norm.value,
        "epsilon": None if epsilon is None else radius(epsilon),
        "mode": mode.value,
        "linear": linear,
        "budget": budget,
        "limit": limit,
        "test": part is Part.test,
        "seed": seed,
        "layers": layers,
    }
    found = anywhere(address, say, bracket_model, arguments)
    for line in found.lines:
        say(line)
    if out is not None:
        csv, picture = write_view(out.parent, out.stem, found)
        say(f"images in {csv}, picture in {picture}")


def radius(text: str) -> float:
    """Return a radius from ``8/255`` or ``0.1``.

    Raises:
        InputError: no number.
    """
    try:
        return float(fractions(text))
    except ValueError as error:
        raise InputError(f"--epsilon: expected a number such as 8/255, got {text!r}") from error
