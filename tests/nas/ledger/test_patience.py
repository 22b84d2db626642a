"""Waiting for a storage: what is tried again, for how long, and what is done once all the same."""

from __future__ import annotations

import threading

import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState
from servers import PASSWORD
from sqlalchemy.exc import OperationalError, ProgrammingError

from nas.errors import LedgerLost
from nas.ledger.patience import Patience, be_patient
from nas.ledger.study import open_study

GONE = OperationalError("SELECT 1", {}, Exception("server closed the connection"))


@pytest.fixture
def sleeps(monkeypatch):
    """Let time pass without waiting; return the pauses."""
    pauses = []
    monkeypatch.setattr("nas.ledger.patience.time.sleep", pauses.append)
    monkeypatch.setattr("nas.ledger.patience.time.monotonic", lambda: sum(pauses))
    return pauses


def failing(times, error=GONE):
    left = [error] * times

    def operation():
        if left:
            raise left.pop()
        return 7

    return operation


def test_an_operation_is_tried_again_and_told_once_each_way(sleeps):
    said = []
    assert Patience("here", said.append, 60)(failing(5)) == 7
    assert len(sleeps) == 5
    assert sleeps == sorted(sleeps)
    assert [line.split(":")[0][:40] for line in said] == [
        "the ledger here does not answer ((builti",
        f"the ledger here is back after {sum(sleeps):.1f} s"[:40],
    ]


def test_the_wait_has_an_end_and_is_not_begun_again(sleeps):
    patience = Patience("here", lambda line: None, 60)
    with pytest.raises(LedgerLost, match="for 60 s .*server closed.*--resume"):
        patience(failing(100))
    assert sum(sleeps) == pytest.approx(60)
    tried = len(sleeps)
    with pytest.raises(LedgerLost):
        patience(failing(1))
    assert len(sleeps) == tried
    assert patience(failing(0)) == 7  # it is back
    assert patience(failing(1)) == 7


@pytest.mark.parametrize("error", [ValueError("no"), ProgrammingError("SELEC", {}, Exception())])
def test_what_waiting_does_not_mend_is_raised_at_once(sleeps, error):
    with pytest.raises(type(error)):
        Patience("here", lambda line: None, 60)(failing(1, error))
    assert sleeps == []


def test_a_heartbeat_does_not_wait(sleeps):
    patience, seen = Patience("here", lambda line: None, 60), []

    def beat():
        try:
            patience(failing(1))
        except OperationalError as error:
            seen.append(error)

    thread = threading.Thread(target=beat)
    thread.start()
    thread.join()
    assert seen == [GONE]
    assert sleeps == []


def test_a_state_whose_answer_was_lost_is_not_an_error(tmp_path, sleeps):
    url = f"sqlite:///{tmp_path}/ledger.db"
    study = open_study("", directions=["maximize"], storage=url, name="mine")
    trial = study.ask()
    real = study._storage.set_trial_state_values

    def written_but_not_heard(*arguments, **settings):
        real(*arguments, **settings)
        if not sleeps:
            raise GONE

    written_but_not_heard.__name__ = "set_trial_state_values"
    study._storage.set_trial_state_values = written_but_not_heard
    be_patient(study, "here", lambda line: None, 60)
    study.tell(trial, 0.5)
    assert len(sleeps) == 1
    assert study.trials[0].state is TrialState.COMPLETE
    with pytest.raises(UpdateFinishedTrialError):
        study._storage.set_trial_user_attr(trial._trial_id, "late", 1)


def test_lines_in_redis_are_written_once_and_missed_when_they_are_gone(redis_server):
    url = redis_server.url()
    study = open_study("", directions=["maximize"], storage=url, name="lines")
    backend = study._storage._backend
    real = backend.redis.eval

    def twice(*arguments):
        real(*arguments)
        return real(*arguments)  # as by a client that did not hear the first answer

    backend.redis.eval = twice
    numbers = [study.ask().number for _ in range(3)]
    assert numbers == [0, 1, 2]
    assert len(open_study("", storage=url, name="lines").trials) == 3
    backend.redis.delete(backend._lines)
    with pytest.raises(LedgerLost, match="restarted without what it had") as lost:
        study.get_trials()
    assert PASSWORD not in str(lost.value)
