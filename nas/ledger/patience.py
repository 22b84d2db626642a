"""A storage that stops answering is asked again for a stated time; then the search stops."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage
from optuna.study import Study
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, PendingRollbackError

from nas.errors import LedgerLost
from nas.ledger.address import reason
from nas.ledger.storages import storage_fault

Result = TypeVar("Result")
Say = Callable[[str], None]

SECONDS = 300.0
VARIABLE = "PSINAS_STORAGE_WAIT"
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0


class Patience:
    """Calls an operation again until the storage answers.

    Only the thread that made it waits: a heartbeat that fails is simply missed.

    Args:
        place: how a person knows the storage.
        say: is told when it stops answering and when it is back.
        seconds: how long to try; None takes ``PSINAS_STORAGE_WAIT``, else 300.
    """

    def __init__(self, place: str, say: Say, seconds: float | None = None) -> None:
        wait = float(os.environ.get(VARIABLE, SECONDS)) if seconds is None else seconds
        self._place, self._say, self._seconds = place, say, wait
        self._thread = threading.get_ident()
        self._lost = False

    def __call__(self, operation: Callable[[], Result]) -> Result:
        """Return what the operation returns.

        Raises:
            LedgerLost: the storage did not answer in time. From then on each call tries once.
        """
        began, pause, failed = time.monotonic(), FIRST_PAUSE, False
        while True:
            try:
                result = operation()
            except Exception as error:
                why = unanswered(error)
                if why is None or threading.get_ident() != self._thread:
                    raise
                left = self._seconds - (time.monotonic() - began)
                if self._lost or left <= 0:
                    self._lost = True
                    raise LedgerLost(
                        f"the ledger {self._place} did not answer for {self._seconds:g} s ({why}): "
                        "what is done is kept; --resume goes on when it is back"
                    ) from error
                if not failed:
                    self._say(
                        f"the ledger {self._place} does not answer ({why}): trying again for "
                        f"{self._seconds:g} s"
                    )
                failed = True
                time.sleep(min(pause, left))
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                if failed:
                    away = time.monotonic() - began
                    self._say(f"the ledger {self._place} is back after {away:.1f} s")
                self._lost = False
                return result


def unanswered(error: BaseException) -> str | None:
    """Return why a storage did not answer, or None for an error that trying again does not mend."""
    fault = storage_fault(error)
    if fault is None:
        return None
    lost = isinstance(fault, DBAPIError) and fault.connection_invalidated
    # The last is what SQLAlchemy says where Optuna asks again on a connection that has gone.
    kinds = (OperationalError, InterfaceError, PendingRollbackError)
    if lost or isinstance(fault, kinds) or _of_redis(fault):
        return reason(fault)
    return None


def be_patient(study: Study, place: str, say: Say, seconds: float | None = None) -> Patience:
    """Let every operation on a study's storage wait for it; return what waits.

    Args:
        study: in a database or in Redis; a file does not come back by waiting.
        place, say, seconds: as in :class:`Patience`.
    """
    storage, patience = study._storage, Patience(place, say, seconds)
    if isinstance(storage, JournalStorage):  # its lines are numbered: only a backend can repeat one
        if hasattr(storage._backend, "patiently"):
            storage._backend.patiently = patience
        return patience
    for name in vars(BaseStorage):
        if not name.startswith("_") and callable(getattr(storage, name)):
            setattr(storage, name, _patient(getattr(storage, name), patience))
    return patience


def _patient(operation: Callable[..., Any], patience: Patience) -> Callable[..., Any]:
    @wraps(operation)
    def call(*arguments: Any, **settings: Any) -> Any:
        tries = 0

        def once() -> Any:
            nonlocal tries
            tries += 1
            try:
                return operation(*arguments, **settings)
            except UpdateFinishedTrialError:
                if tries > 1 and operation.__name__ == "set_trial_state_values":
                    return True  # done by a try whose answer was lost
                raise

        return patience(once)

    return call


def _of_redis(fault: BaseException) -> bool:
    kinds = {kind.__name__ for kind in type(fault).__mro__ if kind.__module__.startswith("redis.")}
    return bool(kinds & {"ConnectionError", "TimeoutError", "ReadOnlyError"})
