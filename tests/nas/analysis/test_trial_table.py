"""The tidy table: columns, order, types and attributes of every kind of run, alone and together."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from written_runs import write_run

import nas
from nas.analysis import load_table
from nas.analysis.trial_table import BOOKKEEPING, STATUSES, runs_in, unique_names
from nas.errors import InputError

CHOICES = {"depth": [1, 2], "rate": [0, 0.5], "kind": ["a", "b"], "flip": [True, False]}
GOALS = {"psi": "min", "pgd_accuracy": "max"}


def scored(number, **more):
    params = {"depth": 1 + number % 2, "rate": 0.5, "kind": "a", "flip": number > 1}
    scores = {"clean_accuracy": 0.9, "pgd_accuracy": number / 10, "psi": 3.0, "parameters": 7.0}
    kept = {"epochs": 3, "seconds": 1.5, "architecture": {"hash": f"h{number}"}}
    return {"params": params, "scores": scores, **kept, **more}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return runs by what became of them."""
    root = tmp_path_factory.mktemp("runs")
    failed = {"status": "oom", "reason": "no room <b>", "scores": {}}
    other = {"params": {"width": 8}, "scores": {"pgd_accuracy": 0.7, "psi": 1.0}}
    return {
        "mixed": write_run(root / "x" / "same", [scored(0), scored(1, **failed)], CHOICES, GOALS),
        "other": write_run(root / "y" / "same", [other], {"width": [8, 16]}, {"psi": "min"}),
        "empty": write_run(root / "empty", [], CHOICES, GOALS),
        "single": write_run(root / "single", [scored(0)], CHOICES, GOALS),
        "failed": write_run(root / "failed", [scored(i, **failed) for i in (0, 1)], CHOICES, GOALS),
        "killed": write_run(
            root / "killed", [scored(0), {**scored(1), "status": "running"}], CHOICES, GOALS
        ),
        "opposed": write_run(root / "opposed", [other], {"width": [8]}, {"psi": "max"}),
    }


def kinds(table):
    return {name: str(kind) for name, kind in table.dtypes.items()}


def test_columns_and_types_are_as_documented(runs):
    expected = {
        "run": "string", "number": "int64", "status": "category", "reason": "string",
        "depth": "Int64", "rate": "float64", "kind": "string", "flip": "boolean",
        "psi": "float64", "pgd_accuracy": "float64",
    }  # fmt: skip
    more = {"clean_accuracy": "float64", "parameters": "float64"}
    behind = {"epochs": "Int64", "seconds": "float64", "architecture": "string"}
    for name in ("mixed", "single", "killed"):
        found = kinds(load_table(runs[name]))
        assert list(found.items()) == list({**expected, **more, **behind}.items()), name
    assert list(kinds(load_table(runs["failed"])).items()) == list({**expected, **behind}.items())
    empty = load_table(runs["empty"])
    assert len(empty) == 0
    assert list(empty.columns) == ["run", "number", "status", "reason", *GOALS, *behind]
    assert empty.attrs["objectives"] == GOALS
    assert set(kinds(empty).values()) <= {"string", "int64", "category", "float64", "Int64"}


def test_what_stands_there_is_what_the_ledger_holds(runs):
    table = load_table(runs["mixed"])
    assert table["run"].tolist() == ["same", "same"]
    assert table["status"].tolist() == ["complete", "oom"]
    assert table["reason"].tolist() == ["", "no room <b>"]
    assert table["depth"].tolist() == [1, 2]
    assert table["pgd_accuracy"].tolist()[0] == 0.0
    assert table["pgd_accuracy"].isna().tolist() == [False, True]
    assert load_table(runs["killed"])["status"].tolist() == ["complete", "running"]
    assert list(table["status"].cat.categories) == list(STATUSES)
    old = nas.load_table(runs["mixed"])
    shared = [name for name in old.columns if name in table]
    assert set(old.columns) == set(shared)
    for name in shared:
        assert old[name].astype(object).where(old[name].notna(), None).tolist() == (
            table[name].astype(object).where(table[name].notna(), None).tolist()
        ), name


def test_several_runs_stand_below_each_other_under_names_of_their_own(runs):
    table = load_table(runs["mixed"], runs["other"])
    assert table["run"].tolist() == ["x/same", "x/same", "y/same"]
    assert table["width"].tolist()[2] == 8
    assert table["width"].isna().tolist() == [True, True, False]
    assert table["depth"].isna().tolist() == [False, False, True]
    assert table.attrs["decisions"] == [*CHOICES, "width"]
    assert table.attrs["objectives"] == GOALS
    with pytest.raises(InputError, match="psi: min and max"):
        load_table(runs["mixed"], runs["opposed"])
    with pytest.raises(InputError, match="at least one"):
        load_table()


def test_attributes_are_plain_and_survive_parquet(runs, tmp_path):
    table = load_table(runs["mixed"], runs["other"])
    assert json.loads(json.dumps(table.attrs)) == table.attrs
    assert table.attrs["choices"] == {**CHOICES, "width": [8, 16]}
    assert table.attrs["directions"]["clean_accuracy"] == "max"
    assert table.attrs["directions"]["parameters"] == "min"
    assert table.attrs["runs"]["x/same"] == {"name": "written", "seed": 0, "sampler": "random"}
    table.to_parquet(tmp_path / "t.parquet")
    again = pd.read_parquet(tmp_path / "t.parquet")
    assert again.attrs == table.attrs
    pd.testing.assert_frame_equal(again, table)


def test_choices_of_several_types_stand_as_json_and_none_as_missing(tmp_path):
    odd = {"any": [1, "1", None, [0, 1]], "maybe": [None, 3]}
    taken = zip(odd["any"], [3, None, 3, 3], strict=True)
    rows = [{"params": {"any": a, "maybe": m}} for a, m in taken]
    table = load_table(write_run(tmp_path / "odd", rows, odd, {"psi": "min"}))
    assert table["any"].fillna("-").tolist() == ["1", '"1"', "-", "[0, 1]"]
    assert table["maybe"].fillna(-1).tolist() == [3, -1, 3, 3]
    assert table.attrs["choices"] == {"any": ["1", '"1"', None, "[0, 1]"], "maybe": [None, 3]}


def test_repeats_and_bookkeeping_are_shown_where_they_are(tmp_path):
    rows = [scored(0), scored(0, repeat_of=0), scored(1, peak_memory_bytes=5, reused_from="r:1")]
    run = write_run(tmp_path / "run", rows, CHOICES, GOALS)
    assert len(load_table(run)) == 2
    table = load_table(run, repeats=True)
    assert table["repeat_of"].fillna(-1).tolist() == [-1, 0, -1]
    behind = ["epochs", "seconds", "peak_memory_bytes", "architecture", "reused_from", "repeat_of"]
    assert [name for name in table.columns if name in BOOKKEEPING] == behind
    assert {name: kinds(table)[name] for name in behind} == {n: BOOKKEEPING[n] for n in behind}


def test_a_decision_with_the_name_of_a_column_is_refused(tmp_path):
    run = write_run(tmp_path / "run", [{"params": {"seconds": 1}}], {"seconds": [1]}, GOALS)
    with pytest.raises(InputError, match="seconds"):
        load_table(run)


def test_a_directory_without_a_ledger_is_empty_only_if_nothing_was_begun(runs, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    with pytest.raises(InputError, match="study.journal"):
        load_table(bare)
    (bare / "config.yaml").write_text("name: bare\nobjectives: {psi: min}\n", encoding="utf-8")
    assert load_table(bare).empty
    (bare / "trials.csv").write_text("number\n", encoding="utf-8")
    with pytest.raises(InputError, match="study.journal"):
        load_table(bare)


def test_names_tell_runs_apart(tmp_path):
    paths = [tmp_path / p for p in ("a/s", "b/s", "t", "b/s")]
    assert unique_names(paths) == ["a/s", "b/s", "t", "b/s (2)"]


def test_a_folder_of_runs_is_its_runs(runs, tmp_path):
    assert runs_in(runs["empty"]) == [runs["empty"]]
    root = runs["empty"].parent
    expected = sorted(root / name for name in ("empty", "failed", "killed", "opposed", "single"))
    assert runs_in(root) == expected
    with pytest.raises(InputError, match="folder"):
        runs_in(tmp_path / "none")
