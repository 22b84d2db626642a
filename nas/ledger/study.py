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
from sqlalchemy.exc import SQLAlchemyError

from nas.errors import InputError, NoStudy, first_line
from nas.ledger.journal import Journal
from nas.ledger.results import JOURNAL, STUDY
from nas.ledger.storage import LedgerStorage

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
        storage: of Optuna's, or its URL; None is ``study.journal`` in the run directory.
        name: of the study in the storage.

    Raises:
        NoStudy: there is none.
        InputError: the journal cannot be read.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    run = Path(run).resolve()
    journal = run / JOURNAL
    if storage is None and directions is None and not journal.exists():
        raise NoStudy(f"expected a run directory with a {JOURNAL}, got {run}")
    try:
        where: BaseStorage | str = storage or LedgerStorage(Journal(journal))
        if directions is None:
            return optuna.load_study(study_name=name, storage=where)
        return optuna.create_study(
            study_name=name,
            storage=where,
            directions=list(directions),
            pruner=optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
    except KeyError as error:
        raise NoStudy(f"expected a study called {name!r} in {storage or journal}") from error
    except (ValueError, AssertionError, ImportError, SQLAlchemyError) as error:
        why = first_line(error)
        raise InputError(f"the ledger {storage or journal} cannot be opened: {why}") from error
