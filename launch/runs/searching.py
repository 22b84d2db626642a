"""A search from its configuration to its printed table: what every command that searches does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launch.show.console import console, say
from nas.errors import NoWinner
from nas.search.trust import suspicions

# torch, ray and optuna take seconds to import: what needs them is imported where it is used.
if TYPE_CHECKING:
    from launch.config.config import Config
    from launch.runs.run import FinishedTrial


def search_and_report(
    config: Config,
    run: Path,
    *,
    resume: bool,
    keep_trials: bool,
    address: str | None,
    again: str | None = None,
) -> bool:
    """Run what is left of a search, print its table, export its winner; False: interrupted.

    ``again`` is the command that goes on, where it is another than ``psinas search --resume``.

    Raises:
        NoWinner: no trial completed.
    """
    from launch.runs.run import finish_run, make_directory, open_search, settle_config
    from launch.show.progress import Display
    from launch.show.tables import print_trials
    from nas.ledger.study import JOURNAL, RunLock, repair_journal
    from nas.search.search import MAX_REPEATS

    make_directory(run)
    with RunLock(run):
        if repaired := repair_journal(run / JOURNAL):
            say(f"{run}: {repaired}")
        config = settle_config(run, config, resume=resume, keep_trials=keep_trials)
        going = open_search(run, config)
        whole = True
        if going.left():
            from launch.cluster.driver import run_search

            display = Display(console)
            try:
                whole = run_search(going, config, run, display, address=address)
            finally:
                display.end()
        table, winner = finish_run(run, going)
        print_trials(console, table, config)
        done = f"{going.finished} trials in {run}"
        if not whole:
            say(f"stopped: {done}; go on with: {again or f'psinas search --resume --out {run}'}")
            return False
        if going.used_up:
            done += f" (nothing new in {MAX_REPEATS} proposals: the space is used up)"
        if winner is None:
            raise NoWinner(f"{done}: no trial completed; their reasons are in the table above")
        say(f"{done}; winner: trial {winner.number}, exported to {run / 'best'}")
        objective, direction = next(iter(config.objectives.items()))
        say_doubts(going.results(), winner, objective, direction)
    return True


def say_doubts(
    results: Sequence[Mapping[str, Any]], winner: FinishedTrial, objective: str, direction: str
) -> None:
    """Say which suspicious trials scored better than the winner, and whether it is one itself."""
    from nas.search.winners import overruled

    if flags := suspicions(winner.result["scores"]):
        say(f"trial {winner.number} is suspicious, as is every other: {', '.join(flags)}")
    for result in overruled(results, winner.result, objective, direction):
        say(
            f"trial {result['number']} has {objective} {result['scores'][objective]:.4g} but is "
            f"suspicious ({', '.join(suspicions(result['scores']))}): left out"
        )
