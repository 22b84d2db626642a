"""Optuna's storages by URL: databases, Redis, and journals on a disk that several machines share.

Nothing that comes from a shared storage is unpickled: Optuna's own Redis backend and the snapshots
of its journals are not used.
"""

from __future__ import annotations

import importlib.util
import os
import weakref
from typing import Any

import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from sqlalchemy.exc import IntegrityError, ProgrammingError, SQLAlchemyError

from nas.errors import InputError, NoStudy
from nas.ledger.address import KNOWN, REDIS, Address, parsed, reason, shown, with_password
from nas.ledger.journal_file import SharedLines

DRIVERS = {
    "postgresql": {"psycopg": "psycopg", "psycopg2": "psycopg2"},
    "mysql": {"mysqldb": "MySQLdb", "pymysql": "pymysql"},
}
"""Database -> the drivers that a plain URL means, the first that is here; and their modules."""
EXTRAS = {
    "postgresql": "pip install 'psinas[postgresql]'",
    "redis": "pip install 'psinas[redis]'",
    "mysql": "pip install pymysql",
}
CONNECT_SECONDS = 10
ALIVE = {"keepalives": 1, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
CONNECT: dict[str, dict[str, Any]] = {
    "postgresql": {"connect_timeout": CONNECT_SECONDS, **ALIVE},
    "mysql": {"connect_timeout": CONNECT_SECONDS},
    "sqlite": {"timeout": 60},
}


class Unreachable(InputError):
    """A storage that may hold a ledger, and does not answer or lets nobody in."""


def open_storage(url: str, name: str, *, make: bool) -> BaseStorage:
    """Return the storage of a URL.

    Args:
        url: of the storage; its password may be left to :mod:`nas.ledger.address`.
        name: of the study that is wanted in it.
        make: make what is missing: a file, a database's tables.

    Raises:
        InputError: a URL that is none, a driver that is not installed.
        Unreachable: the server does not answer, or refuses the user.
        NoStudy: nothing is there, and ``make`` is false.
    """
    address = parsed(with_password(url))
    if address.kind in REDIS:
        return _redis(address, url, name)
    if address.kind == "journal":
        return _journal(address, url, make=make)
    return _database(address, url, make=make)


def storage_fault(error: BaseException) -> BaseException | None:
    """Return what a database or Redis said of its own, or None: an error of something else.

    Optuna wraps some errors of SQLAlchemy.
    """
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    return cause if isinstance(cause, _faults()) else None


def _faults() -> tuple[type[BaseException], ...]:
    if importlib.util.find_spec("redis") is None:
        return (SQLAlchemyError, OSError)
    import redis

    return (SQLAlchemyError, OSError, redis.RedisError)


def _redis(address: Address, url: str, name: str) -> BaseStorage:
    if importlib.util.find_spec("redis") is None:
        raise InputError(f"storage: {shown(url)} needs a driver: {EXTRAS['redis']}")
    from nas.ledger.journal_redis import RedisJournal

    return JournalStorage(RedisJournal(address.url(password=True), name))


def _journal(address: Address, url: str, *, make: bool) -> BaseStorage:
    path = os.path.abspath(address.path or "")
    if not os.path.exists(path):
        if not make:
            raise NoStudy(f"expected a ledger in {url}, got no such file")
        if not os.path.isdir(os.path.dirname(path)):
            raise InputError(f"storage: expected a file in a directory that is there, got {url}")
    return JournalStorage(SharedLines(path))


def _database(address: Address, url: str, *, make: bool) -> BaseStorage:
    full = address.url(password=True)
    if "+" not in address.scheme:
        full = full.replace(address.scheme, _dialect(address, url), 1)
    settings: dict[str, Any] = {"connect_args": dict(CONNECT.get(address.kind, {}))}
    for pair in address.query.split("&"):
        settings["connect_args"].pop(pair.partition("=")[0], None)  # as the URL has it
    if address.kind == "sqlite":
        there = os.path.exists(address.path or "") or "uri=true" in address.query
        if not there and not make:
            raise NoStudy(f"expected a ledger in {url}, got no such file")
    else:
        settings |= {"pool_pre_ping": True, "pool_recycle": 1800, "pool_timeout": 30}
    try:
        if not make and not _has_tables(full, settings):
            raise NoStudy(f"expected a ledger in {shown(url)}, got a database without any")
        escaped = full.replace("{", "{{").replace("}", "}}")  # Optuna formats it
        try:
            storage = _CachedStorage(RDBStorage(escaped, engine_kwargs=settings))
        except (ProgrammingError, IntegrityError):  # another has made the tables meanwhile
            storage = _CachedStorage(RDBStorage(escaped, engine_kwargs=settings))
    except (ImportError, sqlalchemy.exc.NoSuchModuleError) as error:
        hint = EXTRAS.get(address.kind, f"expected {KNOWN}")
        raise InputError(f"storage: {shown(url)} needs a driver: {hint}") from error
    weakref.finalize(storage, storage._backend.engine.dispose)
    return storage


def _has_tables(url: str, settings: dict[str, Any]) -> bool:
    """Whether Optuna's tables are there; a look leaves none behind."""
    engine = sqlalchemy.create_engine(url, **settings)
    try:
        return sqlalchemy.inspect(engine).has_table("studies")
    finally:
        engine.dispose()


def _dialect(address: Address, url: str) -> str:
    """Return the scheme with a driver that is installed.

    Raises:
        InputError: none is.
    """
    drivers = DRIVERS.get(address.kind)
    if drivers is None:
        return address.scheme
    for driver, module in drivers.items():
        if importlib.util.find_spec(module) is not None:
            return f"{address.kind}+{driver}"
    raise InputError(f"storage: {shown(url)} needs a driver: {EXTRAS[address.kind]}")


def opening_errors() -> tuple[type[BaseException], ...]:
    """Return what opening a storage may raise for the user's sake."""
    return (ValueError, AssertionError, ImportError, StorageInternalError, *_faults())


def refusal(error: BaseException, url: str) -> InputError:
    """Return an error of opening a storage as one line without its password."""
    text = f"the ledger {shown(url)} cannot be opened: {reason(error)}"
    fault = storage_fault(error)
    unreachable = fault is not None and not isinstance(fault, FileNotFoundError | PermissionError)
    return Unreachable(text) if unreachable else InputError(text)
