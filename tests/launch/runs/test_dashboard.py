"""The dashboard shows the ledger under its own names, as it grows, and cannot change it."""

from __future__ import annotations

import contextlib
import json
import math
import threading
import urllib.error
import urllib.request

import optuna
import pytest
from helpers import one_line
from ledgers import NASTY, add_trials, make_run

import launch.runs.dashboard as module
from launch.runs.dashboard import server_of, view_of
from launch.runs.run import Run
from nas.errors import InputError
from nas.ledger.results import JOURNAL

pytest.importorskip("optuna_dashboard")

EPOCHS = (
    "epoch,train_loss,clean_accuracy,robust_accuracy,seconds\n1,2.3,0.5,0.25,1\n2,1.1,0.75,0.5,1\n"
)
SHOWN = NASTY.replace("\u202e", "\\u202e")  # or it would turn what follows
OBJECTIVES = {"pgd_accuracy": "max", "psi": "min"}
ROWS = [
    {"status": "complete", "epochs": EPOCHS,
     "scores": {"pgd_accuracy": 0.5, "psi": 2.0, "clean_accuracy": 0.75,
                "suspicion_zero_gradient": 1.0, "suspicion_zero_gradient_raised": 1.0}},
    {"status": "complete", "repeat_of": 0, "scores": {"pgd_accuracy": 0.5, "psi": 2.0}},
    {"status": "diverged", "reason": f"loss is NaN: {NASTY}"},
    {"status": "complete",
     "scores": {"pgd_accuracy": 0.25, "psi": math.inf, "odd": math.nan, NASTY: 1.0}},
]  # fmt: skip


@contextlib.contextmanager
def served(run):
    """Yield a function that asks a dashboard of a run."""
    with server_of(view_of(Run(run)), "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def ask(path, method="GET"):
            where = f"http://127.0.0.1:{server.server_port}/api/{path}"
            body = b"{}" if method != "GET" else None
            asked = urllib.request.Request(where, method=method, data=body)
            with urllib.request.urlopen(asked) as answer:
                return json.load(answer)

        try:
            yield ask
        finally:
            server.shutdown()
            thread.join()


def attributes(trial):
    return {a["key"]: a["value"] for a in trial["user_attrs"]}


def test_the_study_has_the_names_of_the_run(tmp_path):
    old = {"status": "complete", "repeat_of": 0, "old": True, "scores": ROWS[0]["scores"]}
    make_run(tmp_path / "run", [*ROWS, old], name=NASTY)
    before = (tmp_path / "run" / JOURNAL).read_bytes()
    with served(tmp_path / "run") as ask:
        (study,) = ask("studies")["study_summaries"]
        assert study["study_name"] == SHOWN
        assert study["directions"] == ["maximize", "minimize"]
        found = ask(f"studies/{study['study_id']}")
        assert found["objective_names"] == ["pgd_accuracy", "psi"]
        first, failed, last = found["trials"]
        assert [t["number"] for t in found["trials"]] == [0, 1, 2]  # repeats are none of their own
        assert [t["state"] for t in found["trials"]] == ["Complete", "Fail", "Complete"]
        assert first["values"] == [0.5, 2.0]
        assert attributes(first).items() >= {
            ("status", "complete"), ("clean_accuracy", "0.75"), ("flags", "zero_gradient"),
        }  # fmt: skip
        assert "suspicion_zero_gradient" not in attributes(first)
        told = [(v["step"], v["value"]) for v in first["intermediate_values"]]
        assert told == [(1, 0.25), (2, 0.5)]
        assert attributes(failed)["status"] == "diverged"
        assert attributes(failed)["reason"] == f"loss is NaN: {SHOWN}"
        assert last["values"] == [0.25, "inf"]
        assert attributes(last)["odd"] == "nan"
        assert attributes(last)[SHOWN] == "1.0"
    assert (tmp_path / "run" / JOURNAL).read_bytes() == before


def test_what_is_added_is_read_and_nothing_else(tmp_path):
    study = make_run(tmp_path / "run", ROWS)
    view = view_of(Run(tmp_path / "run"))
    first = view.get_all_trials(0, deepcopy=False)
    add_trials(study, tmp_path / "run", [{"status": "running"}, ROWS[0] | {"epochs": EPOCHS}],
               OBJECTIVES)  # fmt: skip
    read = []
    journal = view._source[0]._backend
    others = journal._others
    journal._others = lambda: (read.append(line) or line for line in others())
    now = view.get_all_trials(0, deepcopy=False)
    states = optuna.trial.TrialState
    assert [t.state for t in now[3:]] == [states.WAITING, states.COMPLETE]  # nobody runs it
    assert now[3].user_attrs == {"status": "left"}
    assert all(a is b for a, b in zip(first, now, strict=False))  # laid out once
    lines = (tmp_path / "run" / JOURNAL).read_bytes().splitlines()
    assert 0 < len(read) < len(lines) / 2
    read.clear()
    assert view.get_all_trials(0, deepcopy=False)[4] is now[4]
    assert not read


@pytest.mark.parametrize(
    ("method", "path"),
    [("DELETE", "studies/0"), ("POST", "studies"), ("PUT", "studies/0/note"),
     ("PUT", "studies/0/0/note"), ("POST", "trials/0/tell"), ("POST", "studies/0/rename")],
)  # fmt: skip
def test_nothing_can_be_changed(tmp_path, method, path):
    make_run(tmp_path / "run", ROWS[:1])
    before = (tmp_path / "run" / JOURNAL).read_bytes()
    with served(tmp_path / "run") as ask:
        with pytest.raises(urllib.error.HTTPError, match="403"):
            ask(path, method)
        assert len(ask("studies")["study_summaries"]) == 1
    assert (tmp_path / "run" / JOURNAL).read_bytes() == before


def test_the_storage_refuses_too(tmp_path):
    make_run(tmp_path / "run", ROWS[:1])
    view = view_of(Run(tmp_path / "run"))
    study = optuna.load_study(study_name="made", storage=view)
    for change in (
        lambda: study.ask(),
        lambda: study.set_user_attr("a", 1),
        lambda: view.set_study_system_attr(0, "a", 1),
        lambda: optuna.delete_study(study_name="made", storage=view),
        lambda: view.set_trial_user_attr(0, "a", 1),
    ):
        with pytest.raises(InputError, match="only a search writes"):
            change()


def test_a_run_without_trials_shows_them_as_they_come(tmp_path):
    run = tmp_path / "run"
    made = make_run(tmp_path / "other", [])
    run.mkdir()
    (run / "config.yaml").write_bytes((tmp_path / "other" / "config.yaml").read_bytes())
    with served(run) as ask:
        assert ask("studies/0")["trials"] == []
        assert not (run / JOURNAL).exists()
    view = view_of(Run(run))
    add_trials(made, tmp_path / "other", ROWS[:1], OBJECTIVES)
    (tmp_path / "other" / JOURNAL).rename(run / JOURNAL)
    assert len(view.get_all_trials(0)) == 1


def test_a_study_of_a_database_is_shown_alike(tmp_path):
    url = f"sqlite:///{tmp_path / 'all.db'}"
    study = make_run(tmp_path / "run", ROWS, storage=url)
    view = view_of(Run(tmp_path / "run"))
    assert [t.number for t in view.get_all_trials(0)] == [0, 1, 2]
    assert view.get_all_studies()[0].study_name == "made"
    add_trials(study, tmp_path / "run", [{"status": "error", "reason": "x"}], OBJECTIVES)
    assert view.get_all_trials(0)[3].user_attrs["reason"] == "x"
    with pytest.raises(InputError):
        view.delete_study(0)
    assert len(study.get_trials()) == 5


def test_a_last_line_that_is_being_written_waits(tmp_path):
    make_run(tmp_path / "run", ROWS)
    journal = tmp_path / "run" / JOURNAL
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-40])
    view = view_of(Run(tmp_path / "run"))
    before = len(view.get_all_trials(0))
    journal.write_bytes(whole)
    assert before <= 3 == len(view.get_all_trials(0))
    assert view.get_all_trials(0)[2].state == optuna.trial.TrialState.COMPLETE


def test_one_line_where_it_is_not_installed_or_cannot_listen(tmp_path, psinas, monkeypatch):
    make_run(tmp_path / "run", ROWS[:1])
    with server_of(view_of(Run(tmp_path / "run")), "127.0.0.1", 0) as server:
        found = psinas("dashboard", tmp_path / "run", "--port", server.server_port)
        one_line(found, "--port: expected a free port of 127.0.0.1")
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    for option in ([], ["--tensorboard", tmp_path / "events"]):
        one_line(psinas("dashboard", tmp_path / "run", *option), "pip install 'psinas[live]'")
    one_line(psinas("dashboard", tmp_path), "expected a run directory")
