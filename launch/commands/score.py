"""The command ``psinas score``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launch.commands.options import Address, DataOption, ModelArgument, Part, PartOption
from launch.runs.anywhere import anywhere
from launch.runs.score import score_model
from launch.show.columns import beside
from launch.show.console import say
from launch.show.outputs import check_file, write_file
from launch.show.scored import flag_lines, header_lines
from nas.search.trust import plain_names


def score(
    target: ModelArgument,
    data: DataOption = None,
    metrics: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Names, or YAML: '[{name: pgd, steps: 20}]'."),
    ] = None,
    epsilon: Annotated[
        str | None,
        typer.Option(
            help="L infinity radius of every attack that names none, such as 8/255; "
            "an L2 attack names its own."
        ),
    ] = None,
    part: PartOption = Part.test,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many images.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of random starts.")] = 0,
    suspicion: Annotated[
        bool, typer.Option("--suspicion", help="Also look for signs of masked gradients.")
    ] = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Also write here.")] = None,
    address: Address = None,
) -> None:
    """Score a model on test images, on a GPU where there is one, and say under what.

    Example: psinas score runs/digits/best --metrics clean,pgd --epsilon 0.1 --suspicion
    """
    if out is not None:
        check_file(out)
    arguments = {
        "target": target,
        "data": data,
        "metrics": metrics,
        "epsilon": epsilon,
        "test": part is Part.test,
        "limit": limit,
        "seed": seed,
        "suspicion": suspicion,
    }
    scored = anywhere(address, say, score_model, arguments)
    if out is not None:
        text = scored.to_json() + "\n"
        write_file(out, lambda partial: partial.write_text(text, encoding="utf-8"))
    scores = scored.scores
    for line in header_lines(scored.of):
        say(line)
    say("")
    for line in beside({name: (f"{scores[name]:.6g}",) for name in plain_names(scores)}):
        say(line)
    for line in flag_lines(scores):
        say(line)
