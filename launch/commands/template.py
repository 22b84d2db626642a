"""The command ``psinas template``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launch.cluster.templates import FILES, about, template
from launch.show.columns import beside
from launch.show.console import say
from nas.errors import InputError


def template_command(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Which; without it, all are listed.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write it there; printed by default.")
    ] = None,
) -> None:
    """Hand out a file that launches searches on a cluster: Slurm, ray up, KubeRay, plain hosts.

    Example: psinas template slurm --out .
    """
    if name is None:
        if out is not None:
            raise InputError(f"--out: expected a template before it ({', '.join(FILES)}), got none")
        for line in beside({known: (about(known),) for known in FILES}):
            say(line)
        return
    text = template(name)
    if out is None:
        print(text, end="")
        return
    say(f"{_written(out, FILES[name], text)}; its first lines say what to change and how to launch")


def _written(directory: Path, file: str, text: str) -> Path:
    """Write a new file; what is there stays.

    Raises:
        InputError: it is there, or cannot be written.
    """
    path = directory / file
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out: expected a directory, got {directory}: {error}") from error
    try:
        with path.open("x", encoding="utf-8", newline="\n") as opened:
            opened.write(text)
        if text.startswith("#!"):
            path.chmod(path.stat().st_mode | 0o111)
    except FileExistsError as error:
        raise InputError(f"--out: expected no {file} in {directory}, got one: it stays") from error
    except OSError as error:
        raise InputError(f"--out: expected a file to write, got {path}: {error}") from error
    return path
