"""How a search begins or goes on: its directory, its settled configuration, its ledger."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from launch.cluster.scheduler import reached
from launch.config.config import Config, deciding, differing_keys
from launch.config.documents import save_document
from launch.config.trust import remember
from launch.config.versions import versions
from launch.runs.ledgers import DECIDING, begun, settle_storage, study_to_join
from launch.runs.run import CONFIG, Run
from nas.data.checksum import DATA_CHECKSUM
from nas.data.places import as_saved, located
from nas.errors import InputError, NoStudy
from nas.ledger.address import shown
from nas.ledger.drivers import DRIVER, Drivers
from nas.ledger.lock import LOCK, OWNER
from nas.ledger.patience import Say, be_patient
from nas.ledger.results import RUN_ID
from nas.ledger.study import open_study
from nas.ledger.turns import turn_of
from nas.ledger.version import LEDGER_VERSION, VERSION_KEY, check_version
from nas.samplers.base import LedgerSampler
from nas.samplers.registry import SAMPLERS
from nas.search.search import Search
from nas.search.shared import SharedSearch
from nas.search.spaces import check_same_space
from nas.trial.files import kept_epochs, saved_outcome
from nas.trial.trial import Trial


def make_directory(run: Path) -> None:
    """Make the run directory, or say in one line why it cannot be.

    Raises:
        InputError: it cannot be written, or holds something else.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        probe = run / ".probe"
        probe.write_text("", encoding="utf-8")
        probe.unlink()
    except OSError as error:
        raise InputError(f"--out: expected a directory to write, got {run}: {error}") from error
    others = [
        p for p in run.iterdir() if p.name not in (LOCK, OWNER) and not p.name.startswith(".")
    ]
    if others and not (run / CONFIG).exists():
        raise InputError(
            f"--out: expected a new, empty or earlier run directory, got {run} with other files"
        )
    if (run / CONFIG).exists() and "made_with" not in Run(run).document:
        raise InputError(
            f"--out: expected a new, empty or earlier run directory, got {run} with a {CONFIG} "
            "that no search has written"
        )


def settle_config(
    run: Path,
    asked: Config,
    *,
    resume: bool,
    keep_trials: bool,
    data_checksum: Mapping[str, Mapping[str, str]] | None = None,
    join: bool = False,
) -> Config:
    """Return the configuration to run, saved in the run directory.

    Args:
        run: the run directory, made and locked.
        asked: what the user asked for.
        resume: go on with what is there.
        keep_trials: the user named no number of trials, so a larger saved one stands.
        data_checksum: dataset -> part -> checksum, of the search whose trial is trained again.
        join: work on a study that another run directory has begun.

    Raises:
        InputError: a search is there and resume was not asked for, or it was another search, or
            there is none to join.
    """
    asked = settle_storage(run, asked)
    checksums = dict(data_checksum or {})
    beside = None
    identity = {RUN_ID: _saved_id(run) or uuid.uuid4().hex}
    if (run / CONFIG).exists() and (driver := Run(run).document.get(DRIVER)):
        identity[DRIVER] = driver
    if (run / CONFIG).exists() and begun(run, asked):
        saved = Run(run).config
        checksums |= Run(run).checksums
        beside = Path(saved.data.root) if saved.data.root else None
        if not (resume or join):
            raise InputError(
                f"{run} holds a search already: --resume goes on with it, {_another(asked)}"
            )
        asked = _named_as(Run(run), asked)
        _refuse_another(run, saved, asked)
        if keep_trials and asked.trials is not None and saved.trials is not None:
            trials = max(asked.trials, saved.trials)
            asked = asked.model_copy(update={"trials": trials})
    elif join:
        identity = {RUN_ID: study_to_join(run, asked), DRIVER: uuid.uuid4().hex}
    names = [asked.data.name, *asked.vary.get("data.name", ())]
    asked = asked.model_copy(update={"data": located(asked.data, names, beside)})
    document = {**asked.resolved(), **identity, "made_with": versions()}
    if known := {name: checksums[name] for name in names if name in checksums}:
        document[DATA_CHECKSUM] = known
    save_document(run / CONFIG, document)
    remember(document)
    return asked


def check_begun(run: Path, asked: Config) -> None:
    """Refuse to go on with a run of another configuration, before anything else is searched.

    A start that was refused before its first trial is none: :func:`settle_config` replaces it.

    Raises:
        InputError: the run has trials of other values.
    """
    if not (run / CONFIG).exists():
        return
    begun = Run(run)
    try:
        trials = begun.records
    except NoStudy:
        return
    if trials:
        _refuse_another(run, begun.config, _named_as(begun, asked))


def _named_as(run: Run, asked: Config) -> Config:
    """Return what was asked for with its data under the names that they have in a run."""
    saved, known = run.config, run.checksums
    data = as_saved(asked.data, saved.data, known=saved.data.name in known)
    vary = dict(asked.vary)
    if len(names := vary.get("data.name", ())) == len(saved.vary.get("data.name", ())) > 0:
        vary["data.name"] = [
            as_saved(replace(asked.data, name=a), replace(saved.data, name=s), known=False).name
            for a, s in zip(names, saved.vary["data.name"], strict=True)
        ]
    return asked.model_copy(update={"data": data, "vary": vary})


def _refuse_another(run: Path, saved: Config, asked: Config) -> None:
    if different := differing_keys(saved, asked):
        raise InputError(
            f"{run} holds a search with another configuration: expected the saved one, got "
            f"other values for {', '.join(different)}; {_another(asked)}"
        )


def _another(asked: Config) -> str:
    """Return what begins another search: a storage tells studies apart by their names."""
    name = "" if asked.storage is None else " with a name of its own (--set name=NAME)"
    return f"--out begins another search{name}"


def _saved_id(run: Path) -> str | None:
    """Return what tells this run from another of its name, or None before there is one."""
    return Run(run).id if (run / CONFIG).exists() else None


def open_search(
    run: Path, config: Config, say: Say = lambda line: None, *, died: bool = True
) -> Search:
    """Return the search over the run's ledger, with what workers had finished when a driver died.

    Args:
        run: the run directory.
        config: settled.
        say: is told when a database stops answering, and when it is back.
        died: the driver before was killed.

    Raises:
        InputError: the ledger cannot be read or is another run's, or the space was edited since it
            was begun.
    """
    plan = config.plan()
    study = open_study(
        run, directions=plan.directions, storage=config.storage, name=config.study_name
    )
    place = shown(config.storage or str(run))
    check_version(study.user_attrs, f"the ledger of {run}")
    run_id = _saved_id(run)
    owner = study.user_attrs.get(RUN_ID)
    if owner is None and not study.get_trials(deepcopy=False):
        study.set_user_attr(RUN_ID, run_id)
        study.set_user_attr(VERSION_KEY, LEDGER_VERSION)
        if config.storage is not None:
            study.set_user_attr(DECIDING, deciding(config))
    elif owner != run_id:
        raise InputError(
            f"storage: the study {config.study_name!r} in {place} belongs to another run: give "
            "this search another name (--set name=NAME), or --join to work on that one together"
        )
    elif [d.name.lower() for d in study.directions] != plan.directions:
        directions = ", ".join(d.name.lower() for d in study.directions)
        raise InputError(
            f"the study {config.study_name!r} in {place}: expected objectives to "
            f"{', '.join(plan.directions)}, got {directions}"
        )
    check_same_space(study, plan.decisions, order=plan.sampler is SAMPLERS["grid"])
    search: Search
    if config.storage is None:
        search = Search(study, plan, died=died)
    else:
        patience = be_patient(study, place, say)
        me = Run(run).document.get(DRIVER, run_id)
        turn = turn_of(study, patience)
        search = SharedSearch(study, plan, Drivers(study, me, run), turn, died=died)

    search.kept_epochs = partial(kept_epochs, run)
    if isinstance(study.sampler, LedgerSampler):
        study.sampler.keep_in(run)

    def saved(number: int, trial: Trial) -> dict[str, Any] | None:
        found = saved_outcome(run, number, trial)
        return None if found is None else {**found[0], **reached(config, search, found[1])}

    search.recover(saved)
    return search
