"""Drivers of one study propose in turns, by a lock of the storage that ends with its holder."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from filelock import FileLock
from optuna.storages import JournalStorage
from optuna.study import Study
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from nas.errors import InputError
from nas.ledger.journal_file import SharedLines

Turn = Callable[[], AbstractContextManager[None]]
Patiently = Callable[[Callable[[], Any]], Any]

LOCKS = {
    "postgresql": ("SELECT pg_advisory_lock(:key)", "SELECT pg_advisory_unlock(:key)"),
    "mysql": ("SELECT GET_LOCK(:key, 100000000)", "SELECT RELEASE_LOCK(:key)"),
}
REDIS_SECONDS = 120  # a holder that dies keeps the turn so long


def turn_of(study: Study, patiently: Patiently = lambda take: take()) -> Turn:
    """Return what gives a driver its turn on a study, until it leaves the ``with``.

    Args:
        study: opened.
        patiently: calls what takes a lock of a server, perhaps again.

    Raises:
        InputError: a storage that has no such lock.
    """
    storage: Any = study._storage
    if isinstance(storage, JournalStorage):
        backend: Any = storage._backend
        if isinstance(backend, SharedLines):
            return lambda: _held(FileLock(f"{backend._file_path}.turn"))
        return lambda: _in_redis(backend, patiently)
    engine: Engine = storage._backend.engine
    if engine.dialect.name == "sqlite":
        return lambda: _held(FileLock(f"{engine.url.database}.turn"))
    if engine.dialect.name not in LOCKS:
        raise InputError(
            "storage: expected one that several drivers can share (PostgreSQL, MySQL, Redis, "
            f"sqlite, journal), got {engine.dialect.name}"
        )
    key = zlib.crc32(f"psinas {study.study_name}".encode())
    return lambda: _in_database(engine, key, patiently)


@contextmanager
def _held(lock: FileLock) -> Iterator[None]:
    with lock:
        yield


@contextmanager
def _in_redis(backend: Any, patiently: Patiently) -> Iterator[None]:
    from redis.exceptions import RedisError

    lock = backend.redis.lock(f"{backend.key}:turn", timeout=REDIS_SECONDS, sleep=0.05)
    patiently(lock.acquire)
    try:
        yield
    finally:
        try:
            lock.release()
        except RedisError:  # it ran out, or went with the server: there is nothing to give back
            pass


@contextmanager
def _in_database(engine: Engine, key: int, patiently: Patiently) -> Iterator[None]:
    take, give = (text(line) for line in LOCKS[engine.dialect.name])

    def taken() -> Connection:
        connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(take, {"key": key})
        return connection

    connection: Connection = patiently(taken)
    try:
        yield
    finally:
        try:
            connection.execute(give, {"key": key})
        except DBAPIError:  # the server has gone, and the lock with it
            connection.invalidate()
        finally:
            connection.close()
