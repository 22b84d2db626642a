"""The command ``psinas reproduce``."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from launch.cluster.signals import exit_code
from launch.commands.options import Address, Assignments, Reuse
from launch.papers.every import every, noted
from launch.papers.gallery import write_gallery
from launch.papers.outcomes import FAILED
from launch.papers.page import write_page
from launch.papers.planned import RUNS, carry_out, check_places, planned
from launch.papers.registry import REPRODUCTIONS
from launch.show.reporter import Reporter
from nas.errors import InputError


def reproduce(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A table or figure of a paper.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every one there is, then a page of all.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="In small: minutes on two cores, not a day on a GPU.")
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of --quick: digits, fashion-mnist or food101-10."),
    ] = None,
    assignments: Assignments = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="The run directory; of several searches the directory that holds theirs. "
            "By default runs/<preset>.",
        ),
    ] = None,
    address: Address = None,
    reuse: Reuse = None,
    page: Annotated[
        bool,
        typer.Option("--page", help="Write runs/reproduction.html of what is there, run nothing."),
    ] = False,
    gallery: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="With the page: its small figures and numbers."),
    ] = None,
) -> None:
    """Run a paper's searches, or go on with them; print its table beside ours, and draw it.

    Example: psinas reproduce psi-figure7 --quick --data fashion-mnist
    """
    if (name is not None) + everything + page != 1:
        raise InputError("expected one of the name of a reproduction, --all and --page")
    if name is None and (given := [n for n, v in {"--out": out, "--data": data}.items() if v]):
        raise InputError(f"{given[0]}: expected none without a name: each has its own")
    if gallery is not None and name is not None:
        raise InputError(f"--gallery: expected --all or --page, got {name}")
    report = Reporter()
    if name is not None:
        plan = planned(name, quick=quick, data=data, assignments=assignments or [], out=out)
        check_places(plan)  # before anything is searched
        make = partial(carry_out, plan, report, address=address, reuse=reuse or [])
        stopped = not make() if out is not None else noted(plan, make, RUNS, again=True) is None
        if stopped:
            sys.exit(exit_code())
        return
    failed = []
    if everything:
        found = every(
            list(REPRODUCTIONS),
            report,
            quick=quick,
            assignments=assignments or [],
            address=address,
            reuse=reuse or [],
        )
        if found is None:
            sys.exit(exit_code())
        failed = [f"{n}: {o.reason}" for n, o in found.items() if o.state == FAILED]
    written = write_page(RUNS, quick=quick)
    report.say(f"\n{written.summary}\npage in {written.path}")
    if gallery is not None:
        report.say(f"gallery in {write_gallery(RUNS, gallery, quick=quick)}")
    if failed:
        report.say(f"{len(failed)} failed:\n" + "\n".join(f"  {line}" for line in failed))
        sys.exit(1)
