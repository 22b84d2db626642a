"""Searches whose retrained winners stand in one table: ``retrain.beside`` of a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from launch.show.console import say
from nas.errors import InputError

if TYPE_CHECKING:
    from launch.config.config import Config
    from launch.config.sections import Retrain
    from launch.papers.cubuk.table1 import Row


def with_laid(config: Config, source: str, assignments: Sequence[str]) -> Config:
    """Return the configuration that remembers what was laid over it, for those beside it.

    What tells the searches apart (an adversary, say) is laid over this one alone.

    Args:
        config: of ``source`` with ``assignments`` laid over it.
        source: the preset or file.
        assignments: of ``--set``.

    Raises:
        InputError: another search beside than those over which something was laid.
    """
    from launch.config.config import (
        MAY_DIFFER,
        different_values,
        load_config,
        unchecked_config,
        within,
    )
    from launch.config.documents import read_document

    if config.retrain is None:
        return config
    own = unchecked_config(read_document(source))
    laid = {assignment.partition("=")[0]: assignment for assignment in config.retrain.laid}
    before = own.retrain.beside if own.retrain is not None else []
    if laid and (new := [b for b in config.retrain.beside if b not in before]):
        raise InputError(
            f"retrain.beside: expected those of this run ({', '.join(before)}), over which "
            f"{', '.join(laid)} was laid, got {', '.join(new)}: search anew with another --out"
        )
    apart = {
        key
        for beside in config.retrain.beside
        for key in different_values(own.flat(), load_config(beside, laid.values()).flat())
        if not within(key, MAY_DIFFER)
    }
    for assignment in assignments if config.retrain.beside else ():
        key = assignment.partition("=")[0]
        if key in ("name", "retrain", "retrain.beside"):
            continue
        if any(within(other, [key]) for other in apart):
            say(f"{key} is laid over {config.name} alone: it tells it from those beside it")
            continue
        laid.pop(key, None)  # the latest is laid last
        laid[key] = assignment
    retrain = config.retrain.model_copy(update={"laid": list(laid.values())})
    return config.model_copy(update={"retrain": retrain})


def searches_beside(config: Config, run: Path) -> list[Config]:
    """Return the searches whose winners stand beside this one's; all is checked beforehand.

    Raises:
        InputError: a preset that does not exist, a setting of ``retrain`` that is refused, or a
            search beside that was begun with another configuration.
    """
    from launch.config.config import differing_keys
    from launch.runs.retrain import check
    from launch.runs.run import CONFIG, load_run_config

    if config.retrain is None:
        return []
    others = [_beside(source, config.retrain.laid) for source in config.retrain.beside]
    names = [config.name, *(other.name for other in others)]
    if len(set(names)) < len(names):
        raise InputError(f"retrain.beside: expected searches of different names, got {names}")
    for each in (config, *others):
        check(each)
    for other in others:
        begun = run.parent / other.name
        if (begun / CONFIG).exists() and (
            different := differing_keys(load_run_config(begun), other)
        ):
            raise InputError(
                f"retrain.beside: {begun} was begun with other values for {', '.join(different)}: "
                "expected the same as here; --out DIR/NAME puts this search elsewhere"
            )
    return others


def _beside(source: str, laid: Sequence[str]) -> Config:
    from launch.config.config import load_config

    config = load_config(source, laid)
    if config.retrain is None:
        return config
    retrain = config.retrain.model_copy(update={"laid": [*laid]})
    return config.model_copy(update={"retrain": retrain})


def retrain_after_search(
    config: Config, run: Path, others: Sequence[Config], *, address: str | None
) -> bool:
    """Retrain the winner of a finished search, and those of ``others``; False: interrupted."""
    from launch.config.sections import Retrain
    from launch.papers.cubuk.table1 import table_lines
    from launch.runs.retrain import retrain
    from launch.runs.run import best_trial
    from launch.runs.searching import search_and_report

    again = f"psinas search --resume --out {run}"
    rows: list[Row] = []
    for each, where in [(config, run), *((other, run.parent / other.name) for other in others)]:
        if each is not config:
            say(f"\nbeside {config.name}: {each.name}, in {where}")
            if not search_and_report(
                each, where, resume=True, keep_trials=True, address=address, again=again
            ):
                return False
        winner = best_trial(where, next(iter(each.objectives)))
        say(f"\n{each.name}: retraining trial {winner.number}")
        asked = each.retrain or Retrain()
        row = retrain(where, asked, winner=winner, address=address, again=again)
        if row is None:
            return False
        rows.append(row)
    say("")
    for line in table_lines(rows):
        say(line)
    return True


def rows_beside(run: Path, asked: Retrain) -> list[Row]:
    """Return the rows of the searches beside whose winners have been retrained; say of the rest."""
    from launch.config.config import load_config
    from launch.runs.retrain import saved_row

    rows = []
    for source in asked.beside:
        try:
            row = saved_row(run.parent / load_config(source).name)
        except InputError as error:
            say(f"without {source} beside it: {error}")
            continue
        if row is None:
            say(f"without {source} beside it: its winner has not been retrained")
        else:
            rows.append(row)
    return rows
