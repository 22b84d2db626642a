"""Runs and their ledgers: found again or refused, starts that leave nothing, no passwords."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from helpers import TINY
from servers import ENCODED, PASSWORD

from nas.ledger import address

QUICK = {**TINY, "name": "quick", "sampler": {"name": "grid"}, "trials": 2}
NO_DATA = ["--set", "data={name: 'npz:no.npz'}"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch, in_process):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(address, "_given", {})
    monkeypatch.delenv("PSINAS_STORAGE", raising=False)
    (tmp_path / "quick.yaml").write_text(yaml.safe_dump(QUICK))


def refused(answer, *parts):
    code, out, err = answer
    assert code == 2, (out, err)
    assert len(err.strip().splitlines()) == 1
    for part in parts:
        assert part in err, err
    return err


def went(answer):
    code, out, err = answer
    assert code == 0, err
    return out


def files():
    return sorted(str(p) for p in Path().rglob("*"))


@pytest.mark.parametrize(
    "asked",
    [
        ["--set", "storage=oracle+nothing://me:s3cretword@h/db"],
        ["--set", "storage=quick.db"],
        ["--set", "storage=sqlite:///ledger.db", *NO_DATA],
        ["--set", "storage=journal://ledger.journal", *NO_DATA],
        NO_DATA,
    ],
)
def test_a_refused_start_leaves_nothing(psinas, asked):
    before = files()
    err = refused(psinas("search", "quick.yaml", "--out", "deep/run", *asked))
    assert "s3cretword" not in err
    assert files() == before


def test_a_refused_start_keeps_what_was_there(psinas):
    Path("run").mkdir()
    refused(psinas("search", "quick.yaml", "--out", "run", *NO_DATA))
    assert list(Path("run").iterdir()) == []
    shared = ["--set", "storage=sqlite:///shared.db"]
    went(psinas("search", "quick.yaml", "--out", "one", *shared))
    with sqlite3.connect("shared.db") as database:
        before = list(database.iterdump())
    refused(psinas("search", "quick.yaml", "--out", "two", *shared), "another run", "another name")
    assert not Path("two").exists()
    name = ["--set", "name=other"]
    refused(psinas("search", "quick.yaml", "--out", "two", *shared, *name, *NO_DATA))
    assert not Path("two").exists()
    with sqlite3.connect("shared.db") as database:
        assert [r for r in database.iterdump() if "sqlite_sequence" not in r] == [
            r for r in before if "sqlite_sequence" not in r
        ]
    went(psinas("search", "quick.yaml", "--out", "two", *shared, *name))  # as it was told
    refused(
        psinas("search", "quick.yaml", "--out", "one", *shared, *name),
        "--resume goes on with it",
        "--out begins another search with a name of its own",
    )
    third = ["--out", "three", "--set", "name=third"]
    went(psinas("search", "quick.yaml", *shared, *third))


def test_a_relative_database_is_found_from_another_directory(psinas, tmp_path, monkeypatch):
    shared = ["--set", "storage=sqlite:///shared.db"]
    went(psinas("search", "quick.yaml", "--out", "run", *shared))
    saved = yaml.safe_load(Path("run/config.yaml").read_text())["storage"]
    assert saved == f"sqlite:///{tmp_path}/shared.db"
    table = Path("run/trials.csv").read_bytes()
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    for source in (["../quick.yaml", *shared], []):
        out = went(psinas("search", *source, "--resume", "--out", "../run"))
        assert "2 trials in ../run" in out
        assert Path("../run/trials.csv").read_bytes() == table
    assert "running" not in went(psinas("trials", "../run"))
    assert files() == []
    refused(
        psinas("search", "../quick.yaml", "--resume", "--out", "../run"),
        "has its trials in",
        "shared.db",
        "got null",
    )
    other = ["--set", "storage=sqlite:///other.db"]
    refused(psinas("search", "../quick.yaml", "--resume", "--out", "../run", *other), "other.db")
    assert files() == []


@pytest.mark.parametrize("shared", [True, False])
def test_a_ledger_that_is_gone_is_not_begun_anew(psinas, shared):
    storage = ["--set", "storage=sqlite:///shared.db"] if shared else []
    ledger = Path("shared.db" if shared else "run/study.journal")
    went(psinas("search", "quick.yaml", "--out", "run", *storage))
    table = Path("run/trials.csv").read_bytes()
    ledger.rename("aside")
    for resume in (["--resume"], []):
        refused(
            psinas("search", "quick.yaml", "--out", "run", *storage, *resume),
            "with 2 trials or more",
            "got none",
        )
    refused(psinas("trials", "run"))
    assert not ledger.exists()
    assert Path("run/trials.csv").read_bytes() == table
    shutil.move("aside", ledger)
    went(psinas("search", "quick.yaml", "--out", "run", *storage, "--resume"))
    assert Path("run/trials.csv").read_bytes() == table


def test_a_database_that_moved_is_followed(psinas):
    went(psinas("search", "quick.yaml", "--out", "run", "--set", "storage=sqlite:///a.db"))
    shutil.move("a.db", "b.db")
    moved = ["--out", "run", "--resume", "--trials", "3", "--set", "storage=sqlite:///b.db"]
    assert "3 trials in run" in went(psinas("search", "quick.yaml", *moved))
    assert len(pd.read_csv("run/trials.csv")) == 3
    assert not Path("a.db").exists()


def test_a_table_is_of_the_run_that_was_asked_for(psinas):
    shared = ["--set", "storage=sqlite:///shared.db"]
    went(psinas("search", "quick.yaml", "--out", "one", *shared))
    shutil.copytree("one", "two")
    document = yaml.safe_load(Path("two/config.yaml").read_text())
    Path("two/config.yaml").write_text(yaml.safe_dump({**document, "run_id": "0" * 32}))
    for command in (
        ["trials", "two"],
        ["export", "--formats", "weights", "two", "--trial", "0", "--out", "e"],
    ):
        refused(psinas(*command), "another run's", "0" * 32)
    refused(psinas("search", "quick.yaml", "--out", "two", *shared, "--resume"), "right database")
    went(psinas("trials", "one"))


def test_a_database_that_does_not_answer_is_asked_again(psinas):
    closed = "postgresql://me:s3cretword@127.0.0.1:1/db"
    pytest.importorskip("psycopg")
    answer = psinas("search", "quick.yaml", "--out", "run", "--set", f"storage={closed}")
    err = refused(answer, "me:***@127.0.0.1:1/db")
    assert "s3cretword" not in err + Path("run/config.yaml").read_text()
    went(psinas("search", "quick.yaml", "--out", "run", "--set", "storage=sqlite:///right.db"))


@pytest.mark.parametrize("kind", ["postgres", "redis_server"])
def test_a_password_is_in_no_file_and_no_message(kind, psinas, request, monkeypatch):
    server = request.getfixturevalue(kind)
    storage = f"storage={server.url()}"
    name = ["--set", f"name=secret-{kind}"]
    told = [psinas("search", "quick.yaml", "--out", "run", "--set", storage, *name)]
    went(told[0])
    address._given.clear()  # as in another process
    refused(psinas("trials", "run"), "cannot be opened")
    monkeypatch.setenv("PSINAS_STORAGE", server.url())
    told += [
        psinas("trials", "run"),
        psinas("search", "--out", "run", "--resume", "--trials", "3"),
        psinas("search", "quick.yaml", "--out", "run", "--set", storage, *name),
        psinas("search", "quick.yaml", "--out", "other", "--set", storage, *name),
        psinas("search", "quick.yaml", "--set", f"storage=[{server.url()}]"),
        psinas("search", "quick.yaml", "--set", f"storage.x={server.url()}"),
        psinas("search", storage),
    ]
    assert [code for code, _, _ in told] == [0, 0, 0, 2, 2, 2, 2, 2]
    texts = [text for _, *both in told for text in both]
    texts += [p.read_bytes().decode("latin-1") for p in Path().rglob("*") if p.is_file()]
    for text in texts:
        for secret in (PASSWORD, ENCODED):
            assert secret not in text


def test_a_password_leaves_the_command_line(tmp_path):
    code = (
        "import sys, time, launch.commands.spaces as s\n"
        "s.spaces = lambda x='', set='': (print('ready', flush=True), time.sleep(20))\n"
        "import launch.cli; launch.cli.main()"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([p for p in sys.path if p])}
    url = "postgresql://me:s3cretword@h/db"
    arguments = ["spaces", "--set", f"storage={url}"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "ready\n"
        shown = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        kept = Path(f"/proc/{process.pid}/environ").read_bytes()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert b"storage=postgresql://me@h/db" in shown
    assert b"s3cretword" not in shown
    assert f"PSINAS_STORAGE={url}".encode() in kept


def test_another_directory_joins_a_study_when_asked(psinas):
    asked = ["quick.yaml", "--set", "storage=sqlite:///shared.db"]
    join = ["search", *asked, "--out", "two", "--join", "--trials", "3"]
    refused(psinas(*join), "--join", "begin it without --join")
    assert files() == ["quick.yaml"]
    refused(psinas("search", "quick.yaml", "--out", "two", "--join"), "got null")
    went(psinas("search", *asked, "--out", "one"))
    before = files()
    refused(psinas("search", *asked, "--out", "two"), "--join to work on that one together")
    refused(psinas(*join, "--set", "recipe.epochs=2"), "other values for recipe.epochs")
    assert files() == before
    out = went(psinas(*join))  # as it was told
    assert "3 trials in two" in out
    assert sorted(p.name for p in Path("one/trials").iterdir()) == ["0", "1"]
    assert [p.name for p in Path("two/trials").iterdir()] == ["2"]
    assert len(pd.read_csv("two/trials.csv")) == 3
    one, two = (went(psinas("trials", run)).partition("disk: ")[0] for run in ("one", "two"))
    assert one == two
    for run in ("one", "two"):
        for trial in ("0", "2"):
            went(
                psinas(
                    "export",
                    "--formats",
                    "weights",
                    run,
                    "--trial",
                    trial,
                    "--out",
                    f"{run}-{trial}",
                )
            )
    for trial in ("0", "2"):
        weights = [Path(f"{run}-{trial}/model.safetensors").read_bytes() for run in ("one", "two")]
        assert weights[0] == weights[1]
    shutil.move("one", "away")
    refused(psinas("export", "two", "--trial", "0", "--out", "gone"), "one/trials/0")
    assert "4 trials in two" in went(psinas("search", "--resume", "--out", "two", "--trials", "4"))
