"""The ledger: the Optuna study of a run, on an append-only journal, with one writer at a time.

Every finished trial carries one JSON attribute, ``RESULT``, with all that is known of it; the
Optuna values and state are for the sampler. The file is in :mod:`nas.ledger.journal`, the lock in
:mod:`nas.ledger.lock`; what only looks reads :mod:`nas.ledger.records`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import optuna
from optuna.storages import BaseStorage
from optuna.study import Study

from nas.errors import InputError, NoStudy
from nas.ledger.address import shown
from nas.ledger.journal import Journal
from nas.ledger.journal_storage import LedgerStorage
from nas.ledger.results import JOURNAL, RUN_ID, STUDY
from nas.ledger.storages import open_storage, opening_errors, refusal

Direction = Literal["minimize", "maximize"]


def open_study(
    run: Path | str,
    *,
    directions: Sequence[Direction] | None = None,
    storage: str | BaseStorage | None = None,
    name: str = STUDY,
) -> Study:
    """Return the study of a run; without ``directions`` it must be there.

    Args:
        run: the run directory.
        directions: ``maximize`` or ``minimize`` for each objective, to begin or go on.
        storage: of Optuna's, or its URL (:mod:`nas.ledger.storages`); None is ``study.journal`` in
            the run directory.
        name: of the study in the storage.

    Raises:
        NoStudy: there is none.
        InputError: the journal cannot be read, or the storage cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    run = Path(run).resolve()
    journal = run / JOURNAL
    if storage is None and directions is None and not journal.exists():
        raise NoStudy(f"expected a run directory with a {JOURNAL}, got {run}")
    place = shown(storage) if isinstance(storage, str) else str(storage or journal)
    try:
        where: BaseStorage
        if isinstance(storage, str):
            where = open_storage(storage, name, make=directions is not None)
        else:
            where = storage or LedgerStorage(Journal(journal))
        if directions is None:
            return optuna.load_study(study_name=name, storage=where)
        return optuna.create_study(
            study_name=name,
            storage=where,
            directions=list(directions),
            pruner=optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
    except InputError:
        raise
    except KeyError as error:
        raise NoStudy(f"expected a study called {name!r} in {place}") from error
    except opening_errors() as error:
        if isinstance(error, OSError) and storage is None:
            raise
        raise refusal(error, storage if isinstance(storage, str) else place) from error


def check_owner(study: Study, run_id: str | None, storage: str) -> None:
    """Refuse a study that another run has begun in a storage that both use.

    Args:
        study: opened.
        run_id: of the run; None of one that is older than such ids.
        storage: its URL.

    Raises:
        InputError: it is another run's.
    """
    owner = study.user_attrs.get(RUN_ID)
    if run_id is not None and owner is not None and owner != run_id:
        raise InputError(
            f"the study {study.study_name!r} in {shown(storage)} is another run's: expected that "
            f"of run_id {run_id}, got that of {owner}"
        )
