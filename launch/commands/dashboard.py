"""The command ``psinas dashboard``."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated

import typer

from launch.commands.options import RunArgument
from launch.runs.dashboard import need, server_of, view_of
from launch.runs.run import Run
from launch.runs.tensorboard import write_events
from launch.show.console import say


def dashboard(
    run: RunArgument,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8080,
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    tensorboard: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Instead: write event files for TensorBoard here."),
    ] = None,
) -> None:
    """Show a run in a browser by optuna-dashboard, also while its search runs.

    Nothing that is done there changes the run. Ctrl-C ends it.

    Example: psinas dashboard runs/digits --port 8080
    """
    found = Run(run)
    if tensorboard is not None:
        need("tensorboard", "--tensorboard")
        written = write_events(found, tensorboard)
        say(f"{written.trials} trials in {tensorboard} ({written.new} new or changed)")
        say(f"tensorboard --logdir {tensorboard}")
        return
    need("optuna_dashboard", "psinas dashboard")
    view = view_of(found)
    with server_of(view, host, port) as server:
        trials = len(view.get_all_trials(0, deepcopy=False))
        say(f"{found.path}: {trials} trials, shown at {address(host, server.server_port)}")
        if not loopback(host):
            say(f"whoever reaches {host} can read it: --host 127.0.0.1 keeps it to this machine")
        say("it only shows: nothing done there changes the run; Ctrl-C ends it")
        server.serve_forever()


def address(host: str, port: int) -> str:
    """Return what to type into a browser."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
