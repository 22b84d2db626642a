"""A search from its configuration to its winner: what every command that searches does."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from launch.cluster.driver import run_search
from launch.cluster.thrift import check_room
from launch.config.config import Config
from launch.runs.begin import make_directory, open_search, settle_config
from launch.runs.export import export_row, has_weights, home_of
from launch.runs.ledgers import nothing_left
from launch.runs.left import mark_left
from launch.runs.reuse import equal_trials, open_earlier
from launch.runs.room import room_line, told_when_full
from launch.runs.run import CONFIG, FinishedTrial, Run
from launch.show.numbers import gaps_line
from launch.show.reporter import Reporter
from launch.show.tables import doubt_lines
from nas.data.datasets import told_of
from nas.errors import InputError, NoWinner
from nas.export.place import BEFORE_MANIFESTS, check_place
from nas.files import write_whole
from nas.ledger.address import take_password
from nas.ledger.journal import repair_journal
from nas.ledger.lock import RunLock
from nas.ledger.records import records_of
from nas.ledger.results import JOURNAL, REUSED_FROM
from nas.ledger.table import save_table
from nas.search.reuse import origin
from nas.search.search import Search
from nas.search.winners import best


@dataclass(frozen=True)
class Searched:
    """A search that was run: its directory, its winner, and whether it ran to its end.

    ``in_the_way``: what of somebody's own keeps the winner from being exported, "" for nothing.
    """

    run: Run
    winner: FinishedTrial | None
    whole: bool
    in_the_way: str = ""


def search(
    config: Config,
    path: Path,
    report: Reporter,
    *,
    resume: bool,
    keep_trials: bool,
    address: str | None,
    retry: Collection[str] = (),
    again: str | None = None,
    data_checksum: Mapping[str, Mapping[str, str]] | None = None,
    join: bool = False,
    reuse: Collection[Path] = (),
) -> Searched:
    """Run what is left of a search, tell its table, export its winner.

    Args:
        config: what to search.
        path: the run directory, made if it is not there.
        report: is told of everything.
        resume: go on with what is there.
        keep_trials: the user named no number of trials, so a larger saved one stands.
        address: of a Ray cluster; None starts Ray here.
        retry: statuses of failed trials that run once more.
        again: the command that goes on, where it is another than ``psinas search --resume``.
        data_checksum: dataset -> part -> checksum, of the search whose trial is trained again.
        join: work on a study that another run directory has begun.
        reuse: run directories whose equal trials are not trained again.

    Raises:
        InputError: a directory, cluster or dataset that is refused.
        NoWinner: the search ran to its end, and no trial completed.
        DiskFull: no room was left to write what was found; what the ledger has is kept.
    """
    take_password()
    earlier = open_earlier(reuse, path)
    go_on = again or f"psinas search --resume --out {path}"
    if not (path / CONFIG).exists():
        check_room(path, config.keep)
    with told_when_full(path, go_on), nothing_left(path, config), _held(path) as lock:
        if repaired := repair_journal(path / JOURNAL):
            report.say(f"{path}: {repaired}")
        saved = (path / CONFIG).read_bytes() if (path / CONFIG).exists() else None
        config = settle_config(
            path,
            config,
            resume=resume,
            keep_trials=keep_trials,
            data_checksum=data_checksum,
            join=join,
        )
        going = open_search(path, config, report.say, died=lock.died)
        if going.left() and (line := told_of(config.data)):
            report.say(line)
        if retry:
            report.say(f"{going.retry(retry)} failed trials run once more ({', '.join(retry)})")
        whole = True
        try:
            if going.left():
                check_room(path, config.keep)
                say, failures = report.progress.say, not retry
                known = partial(
                    equal_trials, earlier, path, config, going.plan, say, failures=failures
                )
                whole = run_search(
                    going, config, path, report.progress, address=address, reuse=known
                )
        except InputError:  # refused before anything ran: data that have changed, say
            if saved is not None:
                write_whole(path / CONFIG, lambda partial: partial.write_bytes(saved))
            raise
        finally:
            report.progress.end()
            going.close()
        found = finish(path, going, whole=whole)
        run, winner = found.run, found.winner
        table = run.table() if whole else mark_left(run.table(), {*going.running})
        report.table(table, run.legend, path)
        if gaps := gaps_line(run.records):
            report.say(gaps)
        report.say(room_line(path))
        done = f"{going.finished} trials in {path}"
        if taken_over := sum(REUSED_FROM in result for result in run.results):
            done += f", {taken_over} of them reused"
        if not whole:
            report.say(f"stopped: {done}; go on with: {go_on}")
            return found
        if going.used_up:
            done += f" ({going.why_used_up()})"
        if winner is None:
            raise NoWinner(f"{done}: no trial completed; their reasons are in the table above")
        home = home_of(run, winner)
        if found.in_the_way:
            where = f"not exported ({found.in_the_way})"
        elif has_weights(home, winner):
            where = f"exported to {path / 'best'}"
        elif taken := winner.result.get(REUSED_FROM):
            where = (
                f"reused from {taken}, which has no weights of it: "
                f"`psinas replay {path} --trial {winner.number}` trains them again"
            )
        else:
            where = f"it lies in {home}"
        report.say(f"{done}; winner: trial {winner.number}, {where}")
        row, objective = {"number": winner.number, **winner.result}, run.objective
        for line in doubt_lines(run.results, row, objective, run.legend.direction(objective)):
            report.say(line)
    return found


@contextmanager
def _held(path: Path) -> Iterator[RunLock]:
    """Make the run directory and hold it for this driver."""
    make_directory(path)
    with RunLock(path) as lock:
        yield lock


def finish(path: Path, going: Search, *, whole: bool = True) -> Searched:
    """Save the trial table and export the winner, the best on the first objective."""
    run = Run(path, records_of(going.study))
    save_table(run.table(), path)
    if best(run.results, run.objective, run.legend.direction(run.objective)) is None:
        return Searched(run, None, whole)
    winner = run.best()
    home = home_of(run, winner)
    # Another driver's may be on another disk, and those of a reused trial may be gone.
    if has_weights(home, winner) or (home == path and origin(winner.result) is None):
        try:
            check_place(path / "best", BEFORE_MANIFESTS)
        except InputError as error:  # the search is whole all the same, and its table is told
            return Searched(run, winner, whole, str(error).removeprefix("--out: "))
        export_row(run, winner, path / "best")
    return Searched(run, winner, whole)
