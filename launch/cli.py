"""The ``psinas`` command: what a user types, and one clear line when it cannot be done.

Open this to add a command: a file in ``launch/commands`` and a line in ``COMMANDS``. A command is
imported when it is typed; ``psinas --help`` imports none.
"""

from __future__ import annotations

import difflib
import importlib
import os
import signal
import sys
from typing import Any

import launch.siblings  # isort: skip  # before anything that imports a sibling
import typer
from typer.core import TyperGroup

from launch.cluster.signals import (
    INTERRUPTED,
    exit_code,
    no_more_stops,
    orderly_stops,
    stopping,
)
from launch.config.modules import look_in
from launch.config.trust import OPTION, VARIABLE
from launch.show.console import errors, print_anything
from launch.show.passwords import out_of_sight, scrub_tracebacks
from nas.errors import InputError, PsinasError, one_line, whole_line
from nas.ledger.address import scrubbed

COMMANDS: dict[str, tuple[str, str]] = {
    "search": ("search:search", "Search, train and score; export the winner."),
    "reproduce": ("reproduce:reproduce", "Run a paper's searches; print its table beside ours."),
    "trials": ("trials:trials", "Show the trial table, also of a search that is running."),
    "importance": ("importance:importance", "Show which decisions made the difference."),
    "compare": ("compare:compare", "Say whether one run is better than another, and how sure."),
    "export": ("export:export", "Write a trial's weights, description and model card."),
    "replay": ("replay:replay", "Train and score a trial again, outside Ray."),
    "score": ("score:score", "Score a model on test images."),
    "bracket": ("bracket:bracket", "Bound smallest perturbations from both sides, and draw them."),
    "judge": ("judge:judge", "Score the best again by stronger attacks: who wins then?"),
    "seeds": ("seeds:seeds", "Train the best under fresh seeds: which was luck?"),
    "retrain": ("retrain:retrain", "Enlarge a trial, train it, and attack it on test images."),
    "report": ("report:report", "Write one HTML page about a search, or about several."),
    "trends": ("trends:trends", "Show how adversarial accuracy goes with other scores."),
    "dashboard": ("dashboard:dashboard", "Show a run in a browser, also while its search runs."),
    "draw": ("draw:draw", "Draw the cell of an architecture."),
    "table-search": ("table_search:table_search", "Compare samplers on a published table."),
    "presets": ("presets:presets", "List the presets."),
    "reproductions": ("reproductions:reproductions", "List what can be reproduced."),
    "spaces": ("spaces:spaces", "List the search spaces and their settings."),
    "metrics": ("metrics:metrics", "List the metrics, their settings and their scores."),
    "samplers": ("samplers:samplers", "List the samplers."),
    "datasets": ("datasets:datasets", "List the datasets, and where their files are."),
    "doctor": ("doctor:doctor", "Say whether searches can run, here and on a cluster."),
    "template": ("template:template_command", "Hand out a file that launches on a cluster."),
}
"""Name -> (module of ``launch.commands``:function, one line of help)."""

RENAMED = {"children": "trends"}
SETTINGS: dict[str, Any] = {
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}


class Commands(TyperGroup):
    """The commands, each imported when it is asked for.

    typer may bring its own click, so its types stay unnamed here.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module, _, function = COMMANDS[cmd_name][0].partition(":")
        single = typer.Typer(**SETTINGS)
        found = importlib.import_module(f"launch.commands.{module}")
        single.command(cmd_name)(getattr(found, function))
        return typer.main.get_command(single)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS:
            near = difflib.get_close_matches(RENAMED.get(args[0], args[0]), COMMANDS)
            hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])


app = typer.Typer(cls=Commands, no_args_is_help=True, **SETTINGS)


@app.callback()
def psinas() -> None:
    """Search for neural architectures that stay right under attack."""


def main() -> None:
    """Run the command line; bad input is one line and exit code 2."""
    out_of_sight()
    arguments = [a for a in sys.argv[1:] if a not in ("--debug", OPTION)]
    debug = "--debug" in sys.argv[1:]
    if debug:
        scrub_tracebacks()
    if OPTION in sys.argv[1:]:
        os.environ[VARIABLE] = "1"
    print_anything()
    look_in()
    try:
        with orderly_stops():
            app(arguments, standalone_mode=True)
    except InputError as error:
        if debug:
            raise
        errors.print(
            f"psinas: {scrubbed(str(error))}", highlight=False, markup=False, soft_wrap=True
        )
        sys.exit(2)
    except KeyboardInterrupt:
        no_more_stops()
        errors.print("psinas: interrupted")
        sys.exit(exit_code())
    except SystemExit as end:
        # typer's code of any interruption; and ray's of a SIGTERM while it starts
        stopped = end.code == INTERRUPTED or stopping()
        if stopped or end.code == signal.SIGTERM:
            no_more_stops()
            sys.exit(exit_code() if stopped else 128 + signal.SIGTERM)
        raise
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except Exception as error:
        if debug:
            raise
        if isinstance(error, ImportError | AttributeError) and (
            why := launch.siblings.overwritten()
        ):
            errors.print(f"psinas: {why}", highlight=False, markup=False, soft_wrap=True)
            sys.exit(2)
        known = isinstance(error, PsinasError | OSError)
        hint = "" if known else " (a fault of psinas: --debug shows where)"
        told = whole_line(error) if isinstance(error, PsinasError) else one_line(error)
        line = f"psinas: {scrubbed(told)}{hint}"
        errors.print(line, highlight=False, markup=False, soft_wrap=True)
        sys.exit(1)
