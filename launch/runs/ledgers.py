"""A run and its ledger find each other again, or the start is refused: it is never begun anew."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna

from launch.config.config import Config, deciding, different_values
from launch.runs.run import CONFIG, Run
from nas.errors import InputError, NoStudy
from nas.ledger.address import absolute, ends_alike, is_relative, parsed, shown
from nas.ledger.drivers import DRIVER, driver_ids
from nas.ledger.lock import LOCK, OWNER
from nas.ledger.records import has_trials
from nas.ledger.results import JOURNAL, RUN_ID
from nas.ledger.storages import Unreachable, open_storage
from nas.ledger.study import open_study

TABLE, TRIALS = "trials.csv", "trials"
DECIDING = "deciding"
"""The attribute of a study that holds what decides its scores, for those who join."""


def settle_storage(run: Path, asked: Config) -> Config:
    """Return the configuration with a storage that means the same from every directory.

    A relative path is taken from the current directory, unless the run was begun from another with
    the same one.

    Raises:
        InputError: no URL of a storage.
    """
    if asked.storage is None:
        return asked
    storage = absolute(asked.storage)
    if (run / CONFIG).exists():
        saved = Run(run).config.storage
        if saved and is_relative(asked.storage) and ends_alike(asked.storage, saved):
            storage = absolute(saved)
    return asked.model_copy(update={"storage": storage})


def begun(run: Path, asked: Config) -> bool:
    """Whether the run has a trial; the ledger of its own that has none is taken away.

    A search that was refused before its first trial (no such cluster, no such files) is no reason
    to refuse the corrected one.

    Args:
        run: the run directory, with a configuration.
        asked: the configuration to begin or go on with, its storage settled.

    Raises:
        InputError: the run had trials, and neither storage has its study.
        Unreachable: the storage that it had does not answer.
    """
    found = Run(run)
    saved, traces = found.config, trials_seen(run)
    kept = None if saved.storage is None else absolute(saved.storage)
    if asked.storage is None and kept is None and has_trials(run):
        return True
    if asked.storage != kept:
        if asked.storage is not None and _holds(run, asked, found.id):
            return True  # the database has moved
        if traces:
            raise InputError(_elsewhere(run, saved, asked))
    try:
        study = open_study(run, storage=saved.storage, name=saved.study_name)
    except NoStudy:
        if traces:
            raise InputError(_lost(run, saved, traces)) from None
        return False
    except Unreachable:
        if traces or asked.storage == kept:
            raise
        return False
    owner = study.user_attrs.get(RUN_ID)
    if owner != found.id and owner is not None:
        if traces:
            raise InputError(_lost(run, saved, traces) + f" (one of run_id {owner})")
        return False
    if study.get_trials(deepcopy=False):
        if asked.storage != kept:
            raise InputError(_elsewhere(run, saved, asked))
        return True
    if saved.storage is None or (owner is not None and _alone(found, study)):
        optuna.delete_study(study_name=saved.study_name, storage=study._storage)
    return False


def study_to_join(run: Path, asked: Config) -> str:
    """Return the id of the run whose study a new run directory is to work on.

    Args:
        run: the new run directory.
        asked: its configuration, its storage settled.

    Raises:
        InputError: no storage that several drivers share, no such study, or one of another
            configuration.
    """
    if asked.storage is None:
        raise InputError("--join: expected a storage that several drivers share, got null")
    try:
        study = open_study(run, storage=asked.storage, name=asked.study_name)
    except NoStudy as error:
        raise InputError(f"--join: {error}: begin it without --join") from None
    attributes = study.user_attrs
    if RUN_ID not in attributes or DECIDING not in attributes:
        raise InputError(
            f"--join: the study {asked.study_name!r} in {shown(asked.storage)}: expected one that "
            "this version of psinas has begun"
        )
    mine = json.loads(json.dumps(deciding(asked)))
    if different := set(different_values(attributes[DECIDING], mine)) - {"storage"}:
        raise InputError(
            f"--join: the study {asked.study_name!r} in {shown(asked.storage)} has another "
            f"configuration: expected its own, got other values for {', '.join(sorted(different))}"
        )
    run_id: str = attributes[RUN_ID]
    return run_id


def trials_seen(run: Path) -> int:
    """Return how many trials the run directory itself shows: it has files or a table of them."""
    directories = (run / TRIALS).iterdir() if (run / TRIALS).is_dir() else iter(())
    numbers = [int(p.name) + 1 for p in directories if p.name.isdigit()]
    rows = 0
    if (run / TABLE).exists():
        with (run / TABLE).open(newline="", encoding="utf-8") as file:
            rows = max(sum(1 for _ in csv.reader(file)) - 1, 0)
    return max([rows, *numbers])


@contextmanager
def nothing_left(run: Path, asked: Config) -> Iterator[None]:
    """Take away what a start made that is refused before its first trial, and nothing else.

    A start whose database does not answer leaves its directory: the same command tries again.

    Args:
        run: the run directory, not made yet.
        asked: what the user asked for.
    """
    made = [p for p in (run, *run.parents) if not p.exists()]
    before = {p.name for p in run.iterdir()} if run.is_dir() else set()
    config = (run / CONFIG).read_bytes() if CONFIG in before else None
    file = _file(settle_storage(run, asked).storage)
    fresh = file is not None and not file.exists()
    try:
        yield
    except Unreachable:
        raise
    except InputError:
        if not _untouched(run):
            raise
        if config is None:
            _drop_study(run)
        elif (run / CONFIG).exists():
            (run / CONFIG).write_bytes(config)
        if fresh and file is not None and _holds_nothing(asked):
            for suffix in ("", ".lock", ".turn"):
                Path(f"{file}{suffix}").unlink(missing_ok=True)
        if run.is_dir():
            for name in {CONFIG, JOURNAL, LOCK, OWNER} - before:
                (run / name).unlink(missing_ok=True)
        for path in made:
            try:
                path.rmdir()
            except OSError:  # somebody else's file is in it, or it was never made
                break
        raise


# ------------------------------------------------------------------------------------------- parts


def _holds(run: Path, asked: Config, run_id: str | None) -> bool:
    """Whether the storage that was asked for has this run's study."""
    try:
        study = open_study(run, storage=asked.storage, name=asked.study_name)
    except NoStudy:
        return False
    return run_id is not None and study.user_attrs.get(RUN_ID) == run_id


def _place(run: Path, config: Config) -> str:
    return str(run / JOURNAL) if config.storage is None else shown(config.storage)


def _elsewhere(run: Path, saved: Config, asked: Config) -> str:
    got = "null" if asked.storage is None else shown(asked.storage)
    kept = "null" if saved.storage is None else shown(saved.storage)
    return (
        f"storage: {run} has its trials in {_place(run, saved)}: expected {kept} or a storage to "
        f"which its study was moved, got {got}; --out begins another search"
    )


def _lost(run: Path, saved: Config, traces: int) -> str:
    where = "is it the right database?" if saved.storage else "restore the file from a copy"
    return (
        f"{run}: expected the study {saved.study_name!r} with {traces} trials or more in "
        f"{_place(run, saved)}, got none: {where} (--out begins another search)"
    )


def _untouched(run: Path) -> bool:
    """Whether the run has no trial."""
    if trials_seen(run):
        return False
    if not (run / CONFIG).exists():
        return True
    try:
        return not Run(run).records
    except NoStudy:
        return True
    except Unreachable:
        return False
    except InputError:  # no storage at all, or another run's study
        return True


def _drop_study(run: Path) -> None:
    """Take the run's study, which has no trial, from a storage that others use."""
    if not (run / CONFIG).exists():
        return
    found = Run(run)
    storage = found.document.get("storage")
    if storage is None:
        return
    try:
        study = open_study(run, storage=storage, name=found.document["name"])
    except InputError:
        return
    if study.user_attrs.get(RUN_ID) == found.id and _alone(found, study):
        optuna.delete_study(study_name=study.study_name, storage=study._storage)


def _alone(found: Run, study: optuna.Study) -> bool:
    """Whether the run has begun the study, and no other driver has joined it."""
    return DRIVER not in found.document and driver_ids(study) <= {found.id}


def _file(storage: str | None) -> Path | None:
    """Return the file of a storage that is one."""
    path = None if storage is None else parsed(storage).path
    return Path(path) if path else None


def _holds_nothing(asked: Config) -> bool:
    """Whether the storage has no study of anybody's."""
    assert asked.storage is not None
    try:
        storage = open_storage(asked.storage, asked.study_name, make=False)
    except NoStudy:
        return True
    return not storage.get_all_studies()
