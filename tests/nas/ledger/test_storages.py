"""Ledgers in real databases, and passwords that are written nowhere."""

from __future__ import annotations

import pytest
from optuna.storages.journal._base import BaseJournalSnapshot
from servers import ENCODED, PASSWORD, USER
from sqlalchemy import create_engine, inspect, make_url

from nas.errors import InputError, NoStudy
from nas.ledger import address
from nas.ledger.address import (
    absolute,
    ends_alike,
    parsed,
    same_place,
    scrubbed,
    shown,
    with_password,
    without_password,
)
from nas.ledger.records import records_of
from nas.ledger.storages import Unreachable, open_storage
from nas.ledger.study import open_study


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    monkeypatch.setattr(address, "_given", {})
    for name in (address.ENVIRONMENT, *address.REDIS_PASSWORDS, "PGPASSWORD"):
        monkeypatch.delenv(name, raising=False)


def trials_of(study):
    return [(r.number, r.params, r.result) for r in records_of(study)]


def work(study):
    """Run three trials; return what the ledger must hold of them."""
    for number in range(3):
        trial = study.ask()
        trial.suggest_categorical("depth", [1, 2, 4])
        trial.set_user_attr("psinas", {"status": "complete", "scores": {"a": number / 7}})
        study.tell(trial, number / 7)
    running = study.ask()
    running.suggest_categorical("depth", [1, 2, 4])
    return [
        *(
            (t.number, t.params, {"status": "complete", "scores": {"a": t.number / 7}})
            for t in study.trials[:3]
        ),
        (3, running.params, None),
    ]


@pytest.mark.parametrize("kind", ["postgres", "redis_server", "journal", "sqlite"])
def test_a_ledger_in_any_storage_is_found_again(kind, tmp_path, request):
    if kind in ("journal", "sqlite"):
        url = f"{kind}:///{tmp_path}/ledger.file"
    else:
        url = request.getfixturevalue(kind).url()
    mine = open_study(tmp_path, directions=["maximize"], storage=url, name=f"again-{kind}")
    other = open_study(tmp_path, directions=["minimize"], storage=url, name=f"other-{kind}")
    expected = work(mine)
    work(other)
    for storage in (url, without_password(url)):
        again = open_study(tmp_path, storage=storage, name=f"again-{kind}")
        assert trials_of(again) == expected
        assert [d.name for d in again.directions] == ["MAXIMIZE"]
    with pytest.raises(NoStudy, match="'nobody'"):
        open_study(tmp_path, storage=url, name="nobody")


def test_a_plain_url_takes_the_driver_that_is_here(postgres, monkeypatch):
    plain = postgres.url().replace("postgresql://", "postgres://")
    storage = open_storage(plain, "drivers", make=True)
    assert storage._backend.engine.dialect.driver == "psycopg"
    assert storage._backend.engine.pool._pre_ping
    monkeypatch.setattr("nas.ledger.storages.importlib.util.find_spec", lambda name: None)
    for url, extra in ((plain, "postgresql"), ("redis://me:abcd@localhost/0", "redis")):
        with pytest.raises(InputError, match=rf"needs a driver: .*psinas\[{extra}\]") as refused:
            open_storage(url, "drivers", make=True)
        assert "abcd" not in str(refused.value)
        assert PASSWORD not in str(refused.value)


def test_a_look_leaves_nothing_in_a_database(postgres, tmp_path):
    full = make_url(postgres.url()).set(drivername="postgresql+psycopg")
    engine = create_engine(full, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE untouched")
    empty = full.set(database="untouched")
    with pytest.raises(NoStudy):
        open_study(tmp_path, storage=empty.render_as_string(False), name="mine")
    looked = create_engine(empty)
    assert inspect(looked).get_table_names() == []
    for used in (engine, looked):
        used.dispose()
    for missing in (f"sqlite:///{tmp_path}/no.db", f"journal://{tmp_path}/no.journal"):
        with pytest.raises(NoStudy, match="no such file"):
            open_study(tmp_path, storage=missing, name="mine")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["postgres", "redis_server"])
def test_what_a_server_refuses_is_one_line_without_the_password(kind, tmp_path, request):
    server = request.getfixturevalue(kind)
    wrong = server.url(password="wr0ngw0rd")
    closed = server.url().replace(f":{server.port}/", ":1/")
    for url in (wrong, closed):
        with pytest.raises(Unreachable, match="cannot be opened") as refused:
            open_study(tmp_path, directions=["maximize"], storage=url, name="mine")
        text = str(refused.value)
        assert "\n" not in text
        assert f"{USER}:***@127.0.0.1" in text
        for secret in ("wr0ngw0rd", PASSWORD, ENCODED):
            assert secret not in text


def test_a_password_comes_from_the_url_else_the_environment(postgres, redis_server, monkeypatch):
    public = {kind: without_password(s.url()) for kind, s in (("p", postgres), ("r", redis_server))}
    assert PASSWORD not in str(public)
    assert ENCODED not in str(public)
    assert with_password(public["p"]) == postgres.url()  # this process was given it
    address._given.clear()
    assert with_password(public["p"]) == public["p"]
    with pytest.raises(Unreachable):
        open_study("", storage=public["r"], name="mine")
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    monkeypatch.setenv("REDISCLI_AUTH", PASSWORD)
    for url in public.values():
        open_study("", directions=["maximize"], storage=url, name="by-environment")
    monkeypatch.delenv("PGPASSWORD")
    monkeypatch.setenv("PSINAS_STORAGE", redis_server.url())
    with pytest.raises(Unreachable):  # of another place
        open_study("", storage=public["p"], name="by-environment")
    monkeypatch.setenv("PSINAS_STORAGE", postgres.url())
    open_study("", storage=public["p"], name="by-environment")
    address.take_password()
    assert address.os.environ["PSINAS_STORAGE"] == public["p"]  # what workers inherit
    open_study("", storage=public["p"], name="by-environment")


@pytest.mark.parametrize(
    ("url", "user", "password", "rest"),
    [
        ("postgresql://me:s3cret@host:1/db", "me", "s3cret", "host:1/db"),
        ("postgresql://me:a@b/c@host/db?x=1", "me", "a@b/c", "host/db"),
        ("postgresql://me:a?b@host/db?x=1", "me", "a?b", "host/db"),
        ("redis://:p%40s@host/0", "", "p@s", "host/0"),
        ("postgresql://host/db?user=me&password=pw&sslmode=require", None, None, "host/db"),
        ("sqlite:////tmp/a@b:c.db", None, None, "//tmp/a@b:c.db"),
    ],
)
def test_urls_are_taken_apart(url, user, password, rest):
    found = parsed(url)
    assert (found.user, found.password, found.rest) == (user, password, rest)
    kept = without_password(url)
    assert "pw" not in kept
    assert password is None or password not in kept
    assert parsed(with_password(kept)) == found
    assert "pw" not in shown(url)
    if password is not None:
        assert shown(url) == kept.replace(f"{user}@", f"{user}:***@")
        assert make_url(with_password(kept)).password == password


def test_sqlite_urls_agree_with_sqlalchemy_and_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for url in ("sqlite:///x.db", f"sqlite:///{tmp_path}/x.db"):
        assert parsed(url).path == make_url(url).database
        assert make_url(absolute(url)).database == str(tmp_path / "x.db")
    for url in ("journal:///a/b.journal", "journal:////a/b.journal"):
        assert absolute(url) == "journal:///a/b.journal"
    assert absolute("journal://b.journal") == f"journal://{tmp_path}/b.journal"
    assert absolute("postgresql://h/db") == "postgresql://h/db"
    assert ends_alike("sqlite:///x.db", "sqlite:////elsewhere/x.db")
    assert not ends_alike("sqlite:///x.db", "sqlite:////elsewhere/y.db")
    for lost in ("sqlite://", "sqlite:///:memory:", "nonsense", "x.db"):
        with pytest.raises(InputError, match="storage: expected"):
            absolute(lost)


def test_the_same_place_under_other_spellings():
    assert same_place("postgres://me:x@h/db", "postgresql+psycopg://me@h:5432/db")
    assert same_place("postgres://me:x@h/db", "postgresql://h/db")
    assert not same_place("postgres://me:x@h/db", "postgresql://you@h/db")
    assert not same_place("postgres://me:x@h/db", "postgresql://me@h/other")


def test_texts_lose_every_password():
    without_password("mysql://me:quietword@h/db")
    for text in (
        "a (postgresql://me:s3cret@h/db) failed",
        "got 'redis://:s3cret@h/0'",
        "got ['x=postgresql://h/db?user=a&password=s3cret']",
        "server said quietword",
    ):
        hidden = scrubbed(text)
        assert "s3cret" not in hidden
        assert "quietword" not in hidden
        assert "***" in hidden
    assert scrubbed("see http://host:80/a and me@host") == "see http://host:80/a and me@host"


def test_optunas_own_redis_pickles_are_not_read(redis_server):
    opened = open_storage(redis_server.url(), "pickles", make=True)
    assert not isinstance(opened._backend, BaseJournalSnapshot)


def test_a_writer_killed_within_a_line_costs_that_line_alone(tmp_path):
    path = tmp_path / "shared.journal"
    url = f"journal://{path}"
    one = open_study("", directions=["maximize"], storage=url, name="mine")
    expected = work(one)
    with path.open("ab") as file:
        file.write(b'{"op_code": 8, "trial')
    two = open_study("", storage=url, name="mine")
    two.set_user_attr("back", True)
    assert trials_of(open_study("", storage=url, name="mine")) == expected
    assert one.user_attrs == {"back": True}
