"""The command ``psinas score``."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from launch.commands.options import Address, DataOption, Part, PartOption
from launch.runs.anywhere import anywhere, named_device
from launch.runs.outside import IMAGENET, Wrapping
from launch.runs.score import Scored, score_model
from launch.show.columns import beside
from launch.show.console import say
from launch.show.outputs import check_file, write_file
from launch.show.scored import curve_lines, flag_lines, header_lines, suite_lines
from nas.errors import InputError
from nas.search.trust import plain_names

PICTURES = (".png", ".svg", ".pdf")


class Device(StrEnum):
    """Where a model is scored."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Normalise(StrEnum):
    """Means and deviations of channels by name."""

    imagenet = "imagenet"


def score(
    target: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="EXPORT_DIR, RUN:TRIAL, torchvision:NAME or pkg.module:callable.",
        ),
    ],
    data: DataOption = None,
    metrics: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Names, or YAML: '[{name: pgd, steps: 20}]'."),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(metavar="standard", help="In place of metrics: clean and autoattack."),
    ] = None,
    epsilon: Annotated[
        str | None,
        typer.Option(
            help="L infinity radius of every attack that names none, such as 8/255; "
            "an L2 attack names its own."
        ),
    ] = None,
    curve: Annotated[
        str | None,
        typer.Option(metavar="1/255,2/255", help="Also robust accuracy at each of these radii."),
    ] = None,
    attack: Annotated[
        str | None,
        typer.Option(help="Of the curve: apgd, or YAML: '{name: apgd, norm: l2}'."),
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw the curve: .png, .svg or .pdf.")
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE.pt", help="A checkpoint (.pt, .safetensors) of MODEL."),
    ] = None,
    normalise: Annotated[
        Normalise | None, typer.Option(help="MODEL wants images normalised like this.")
    ] = None,
    mean: Annotated[
        str | None, typer.Option(metavar="A,B,C", help="MODEL wants (images - mean) / std.")
    ] = None,
    std: Annotated[str | None, typer.Option(metavar="A,B,C", help="With --mean.")] = None,
    size: Annotated[
        int | None, typer.Option(help="MODEL wants images resized to so many pixels a side.")
    ] = None,
    part: PartOption = Part.test,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many images.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of random starts.")] = 0,
    suspicion: Annotated[
        bool, typer.Option("--suspicion", help="Also look for signs of masked gradients.")
    ] = False,
    device: Annotated[
        Device, typer.Option(help="Where; auto is a GPU where there is one.")
    ] = Device.auto,
    out: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Also write here.")] = None,
    address: Address = None,
) -> None:
    """Score a model on test images, on a GPU where there is one, and say under what.

    Example: psinas score runs/digits/best --metrics clean,pgd --epsilon 0.1 --suspicion
    """
    if out is not None:
        check_file(out)
    if (figure is not None or attack is not None) and curve is None:
        raise InputError("--figure, --attack: expected --curve 1/255,2/255,..., got none")
    if figure is not None:
        check_file(figure)
        if figure.suffix not in PICTURES:
            raise InputError(f"--figure: expected one of {', '.join(PICTURES)}, got {figure}")
    if normalise is not None and (mean is not None or std is not None):
        raise InputError("--normalise: expected it without --mean and --std, got both")
    means = IMAGENET if normalise is not None else (_floats(mean, "mean"), _floats(std, "std"))
    arguments: dict[str, Any] = {
        "target": target,
        "data": data,
        "metrics": metrics,
        "epsilon": epsilon,
        "test": part is Part.test,
        "limit": limit,
        "seed": seed,
        "suspicion": suspicion,
        "suite": suite,
        "curve": curve,
        "attack": attack,
        "wrapping": Wrapping(weights, *means, size),
    }
    if address is None:
        arguments["device"] = named_device(device.value)
    elif device is not Device.auto:
        raise InputError("--device: expected it without --address, where a node has its own")
    scored = anywhere(address, say, score_model, arguments)
    if out is not None:
        text = scored.to_json() + "\n"
        write_file(out, lambda partial: partial.write_text(text, encoding="utf-8"))
    if figure is not None and scored.curve is not None:
        _draw(figure, scored.curve, f"{target} on {scored.of['dataset']}")
    _tell(scored)


def _tell(scored: Scored) -> None:
    scores = scored.scores
    for line in header_lines(scored.of):
        say(line)
    say("")
    for line in beside({name: (f"{scores[name]:.6g}",) for name in plain_names(scores)}):
        say(line)
    if scored.curve is not None:
        say("")
        for line in curve_lines(scored.curve):
            say(line)
    for line in [*suite_lines(scores), *flag_lines(scores)]:
        say(line)


def _draw(out: Path, curve: dict[str, Any], title: str) -> None:
    from launch.show.over_epsilon import figure_of

    picture = figure_of(curve, title)
    write_file(out, partial(picture.savefig, format=out.suffix[1:], dpi=150))


def _floats(text: str | None, option: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(
            f"--{option}: expected numbers such as 0.5,0.5,0.5, got {text!r}"
        ) from error
