"""Records read without Optuna are what Optuna reads, whatever stands in the journal."""

from __future__ import annotations

import optuna
import pytest

from nas.errors import InputError, NoStudy
from nas.ledger.records import has_trials, read_records, records_of, results_of, told_apart
from nas.ledger.results import JOURNAL, PLACE, RESULT
from nas.ledger.study import open_study
from nas.ledger.table import Legend
from nas.ledger.version import LEDGER_VERSION, VERSION_KEY


def filled(tmp_path):
    """Return a study with every state, choices of all types and a repeat."""
    study = open_study(tmp_path, directions=["maximize"])
    study.set_user_attr("run_id", "x")
    study.enqueue_trial({"depth": 2, "name": "b"})
    for number, state in enumerate(["complete", "pruned", "fail", "complete", "running", "bare"]):
        trial = study.ask()
        trial.suggest_categorical("depth", [1, 2, 4])
        trial.suggest_categorical("name", ["a", "b", None, True, 0.5])
        trial.suggest_float("rate", 0.1, 0.9)
        result = {"status": state, "scores": {"a": number / 3}, "reason": "Ψ̂ is high",
                  "repeat_of": 0 if number == 3 else None}  # fmt: skip
        if state not in ("running", "bare"):
            trial.set_user_attr(RESULT, result)
            trial.report(0.5, 1)
        states = optuna.trial.TrialState
        if state == "complete":
            study.tell(trial, number)
        elif state in ("pruned", "fail"):
            study.tell(trial, state=states.PRUNED if state == "pruned" else states.FAIL)
    return study


def test_they_are_what_optuna_reads(tmp_path):
    study = filled(tmp_path)
    assert read_records(tmp_path) == records_of(open_study(tmp_path)) == records_of(study)
    assert [r["number"] for r in results_of(read_records(tmp_path))] == [0, 1, 2]


def test_a_number_is_that_of_the_last_place_that_was_written(tmp_path):
    study = filled(tmp_path)
    for place, numbers in ((None, [0, 1, 2, 3, 5]), (9, [0, 1, 2, 3, 9, 5])):
        study._storage.set_trial_user_attr(study.get_trials()[4]._trial_id, PLACE, place)
        assert [r.number for r in read_records(tmp_path)] == numbers
        assert read_records(tmp_path) == records_of(study)


def test_a_study_that_was_deleted_is_not_read(tmp_path):
    study = filled(tmp_path)
    optuna.delete_study(study_name=study.study_name, storage=study._storage)
    with pytest.raises(NoStudy):
        read_records(tmp_path)
    again = open_study(tmp_path, directions=["maximize"])
    again.ask().suggest_categorical("depth", [7])
    assert [(r.number, r.params) for r in read_records(tmp_path)] == [(0, {"depth": 7})]
    assert read_records(tmp_path) == records_of(again)


def test_whether_a_trial_was_begun_is_known_from_the_first_lines(tmp_path):
    assert not has_trials(tmp_path)
    first = open_study(tmp_path, directions=["maximize"])
    assert not has_trials(tmp_path)
    optuna.delete_study(study_name=first.study_name, storage=first._storage)
    study = open_study(tmp_path, directions=["maximize"])
    other = open_study(tmp_path, directions=["maximize"], name="other")
    other.ask()
    assert (has_trials(tmp_path), has_trials(tmp_path, "other")) == (False, True)
    study = open_study(tmp_path)
    study.ask()
    assert has_trials(tmp_path)
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(b"not read")
    assert has_trials(tmp_path)


def test_a_last_line_that_is_being_written_is_left_out(tmp_path):
    filled(tmp_path)
    whole, journal = read_records(tmp_path), tmp_path / JOURNAL
    content = journal.read_bytes()
    for tail in (b'{"op_code": 4, "stu', b'{"op_code": 4, "stu\n'):
        journal.write_bytes(content + tail)
        assert read_records(tmp_path) == whole
    lines = content.splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:3], b"broken\n", *lines[3:]]))
    with pytest.raises(InputError, match="broken line 4"):
        read_records(tmp_path)


def test_studies_in_another_storage_are_read_by_optuna(tmp_path):
    url = f"sqlite:///{tmp_path / 'all.db'}"
    study = open_study(tmp_path, directions=["maximize"], storage=url, name="mine")
    study.ask().suggest_categorical("depth", [3])
    assert read_records(tmp_path, storage=url, name="mine") == records_of(study)
    with pytest.raises(NoStudy):
        read_records(tmp_path, storage=url, name="other")


def test_no_ledger_is_said_to_be_none(tmp_path):
    with pytest.raises(NoStudy, match=JOURNAL):
        read_records(tmp_path)


def test_many_decisions_of_a_space_are_told_apart_by_the_hash():
    few = {"depth": (1, 2), "width": (8,), "recipe.epochs": (1, 2)}
    assert told_apart(few, ["recipe.epochs"]) == ["depth", "recipe.epochs"]
    many = {**{f"op{i}": (0, 1) for i in range(9)}, "recipe.epochs": (1, 2)}
    assert told_apart(many, ["recipe.epochs"]) == ["architecture", "recipe.epochs"]
    assert told_apart({"width": (8,)}, []) == ["width"]


def test_more_of_an_accuracy_or_of_an_end_of_its_interval_is_better():
    legend = Legend({"psi": "max"}, (), ())
    more = ("psi", "pgd_accuracy", "pgd_accuracy_low", "clean_accuracy_high")
    less = ("parameters", "pgd_accuracy_stderr", "psi_low")
    assert {legend.direction(score) for score in more} == {"max"}
    assert {legend.direction(score) for score in less} == {"min"}


def test_a_ledger_of_a_newer_psinas_is_refused(tmp_path):
    study = filled(tmp_path)
    study.set_user_attr(VERSION_KEY, LEDGER_VERSION)
    assert read_records(tmp_path) == records_of(study)
    study.set_user_attr(VERSION_KEY, LEDGER_VERSION + 1)
    with pytest.raises(InputError, match=r"made by a newer psinas: expected .* <= 1, got 2"):
        read_records(tmp_path)
    url = f"sqlite:///{tmp_path / 'db'}"
    other = open_study(tmp_path, directions=["maximize"], storage=url, name="x")
    assert read_records(tmp_path, storage=url, name="x") == []
    other.set_user_attr(VERSION_KEY, LEDGER_VERSION + 1)
    with pytest.raises(InputError, match="made by a newer psinas"):
        read_records(tmp_path, storage=url, name="x")
