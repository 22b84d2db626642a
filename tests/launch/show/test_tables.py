"""The trial table for a person: what comes first, what is chosen, and which front a star means."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from helpers import one_line
from ledgers import NASTY, make_run
from rich.console import Console

from launch.runs.run import Run
from launch.show.reporter import Reporter
from launch.show.shown_columns import cut, shown_columns
from launch.show.tables import print_trials
from nas.names import known_names

SCORES = {
    "psi_init": 1.0, "psi_init_saturated": 0.0, "pgd_accuracy": 0.5, "psi": 2.0, "parameters": 8.0,
    "psi_saturated": 0.0, "clean_accuracy": 0.9, "fgsm_accuracy": 0.6, "pgd_accuracy_stderr": 0.01,
    **{f"other_{i}": float(i) for i in range(30)},
}  # fmt: skip


def rows(*accuracies, **more):
    return [
        {"status": "complete",
         "scores": {**SCORES, "pgd_accuracy": a, "psi": 2 - a, "parameters": 100 * i, **more}}
        for i, a in enumerate(accuracies)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    failed = {"status": "error", "reason": f"RuntimeError: {NASTY} {'long ' * 20}"}
    make_run(path, [*rows(0.25, 0.75, 0.5), failed])
    return path


def printed(table, legend, width, **more):
    console = Console(file=io.StringIO(), width=width, force_terminal=True)
    print_trials(console, table, legend, **more)
    return console.file.getvalue().splitlines()


def test_decisions_objectives_and_accuracies_come_first(run):
    found = Run(run)
    names = list(shown_columns(found.table(), found.legend))
    assert names[:7] == [
        "number", "status", "depth", "pgd_accuracy", "psi", "clean_accuracy", "fgsm_accuracy",
    ]  # fmt: skip
    assert names[7] == "reason"
    assert set(names[-2:]) == {"psi_init_saturated", "psi_saturated"}
    assert "pgd_accuracy_stderr" not in names


def test_ninety_columns_hold_clean_accuracy_and_a_reason_that_is_cut(run):
    found = Run(run)
    lines = printed(found.table(), found.legend, 90)
    assert "clean_accuracy" in lines[0]
    assert "saturated" not in lines[0]
    assert all(len(line) <= 90 for line in lines[:5])
    assert "…" in lines[4]
    assert "\u202e" not in lines[4]


@pytest.mark.parametrize(("width", "expected"), [(5, "abcde"), (4, "abc…"), (1, "…")])
def test_a_text_is_cut_to_what_a_terminal_shows(width, expected):
    assert cut("abcde", width) == expected
    assert cut("中中中", 5) == "中中…"


def numbers(out):
    return [line.split()[0] for line in out.splitlines()[1:] if line[:6].strip(" 0123456789*") == ""
            and line.split()[0].rstrip("*").isdigit()]  # fmt: skip


def test_top_is_the_best_by_the_first_objective(run, psinas):
    _, out, _ = psinas("trials", run, "--top", 2)
    assert numbers(out) == ["1*", "2"]
    _, out, _ = psinas("trials", run, "--top", 2, "--sort", "parameters")
    assert numbers(out) == ["0", "1*"]
    _, out, _ = psinas("trials", run, "--top", 1, "--pareto", "parameters:max,psi")
    assert numbers(out) == ["2*"]


def test_the_star_marks_the_front_that_was_asked_for(run, psinas):
    _, out, _ = psinas("trials", run, "--pareto", "parameters,psi")
    assert numbers(out) == ["0*", "1*"]
    assert "* on the Pareto front of parameters, psi\n" in out


def test_columns_are_chosen_and_keep_their_order(run, psinas, tmp_path):
    _, out, _ = psinas("trials", run, "--columns", "psi, depth,pgd_accuracy_stderr")
    assert out.splitlines()[0].split() == ["number", "psi", "depth", "pgd_accuracy_stderr"]
    out = tmp_path / "t.csv"
    assert psinas("trials", run, "--columns", "psi,number", "--out", out)[0] == 0
    assert list(pd.read_csv(out).columns) == ["psi", "number"]
    one_line(psinas("trials", run, "--columns", "dept"), "--columns: expected columns (depth or")
    one_line(psinas("trials", run, "--columns", " , "), "--columns: expected names with commas")
    one_line(psinas("trials", run, "--columns", "psi", "--watch"), "--watch: expected --every")
    one_line(
        psinas("trials", run, "--columns", "psi", "--correlations"), "--correlations: expected"
    )


@pytest.mark.parametrize(
    ("option", "asked"),
    [("--sort", "pgd_acuracy"), ("--pareto", "psi,PGD_accuracy"), ("--pareto", "pgd_acc:max"),
     ("--columns", "pgd accuracy")],
)  # fmt: skip
def test_an_unknown_score_names_the_near_ones(run, psinas, option, asked):
    found = psinas("trials", run, option, asked)
    one_line(found, "pgd_accuracy")
    assert "other_7" not in found[2]
    assert len(found[2]) < 300


def test_all_of_a_few_names_are_named_and_some_of_many():
    assert known_names("x", ["a", "b"]) == "a, b"
    assert known_names("x", []) == "there is none"
    many = [f"name_{i}" for i in range(20)]
    assert known_names("zzz", many, "psinas metrics") == (
        "name_0, name_1, name_2 or one of 17 others: psinas metrics lists them"
    )
    assert known_names("NAME_7:max", many).startswith("name_7, ")


def test_a_long_search_ends_with_its_best_and_says_where_the_rest_is(tmp_path):
    make_run(tmp_path / "run", rows(*(i / 32 for i in range(30))))
    console = Console(file=io.StringIO(), width=200)
    found = Run(tmp_path / "run")
    Reporter(console).table(found.table(), found.legend, tmp_path / "run")
    out = console.file.getvalue()
    assert numbers(out) == ["29*", *map(str, range(28, 9, -1))]
    rest = f"the best 20 of 30 trials by pgd_accuracy; all of them: psinas trials {tmp_path}/run, "
    assert rest + f"{tmp_path}/run/trials.csv" in out
    short = Console(file=io.StringIO(), width=200)
    Reporter(short).table(found.table().head(20), found.legend, tmp_path / "run")
    assert numbers(short.file.getvalue())[0] == "0"
    assert "the best" not in short.file.getvalue()


def test_a_long_search_that_failed_says_so(tmp_path):
    make_run(tmp_path / "run", [{"status": "error", "reason": "x"}] * 21)
    console = Console(file=io.StringIO(), width=200)
    found = Run(tmp_path / "run")
    Reporter(console).table(found.table(), found.legend, tmp_path / "run")
    assert "\n20 of 21 trials, none complete; all of them: " in console.file.getvalue()


ODD = {
    "empty": [],
    "single": rows(0.5),
    "failed": [{"status": "error", "reason": NASTY}] * 2,
    "killed": [*rows(0.5), {"status": "running"}],
    "hostile": rows(0.5, 0.25, 0.75, **{NASTY: 1.0, "a\x1b[31m\nb": 2.0}),
}


@pytest.mark.parametrize("kind", ODD)
def test_unusual_runs_are_told_as_they_are(tmp_path, psinas, kind):
    make_run(tmp_path / "run", ODD[kind], name=NASTY)
    code, out, err = psinas("trials", tmp_path / "run")
    assert (code, err) == (0, "")
    assert not {"\x1b", "\x07", "\u202e"} & set(out)
    assert {"empty": "no trials", "killed": "left by a driver"}.get(kind, "") in out
    for more in (["--top", 3], ["--format", "csv"], ["--format", "json"], ["--columns", "status"]):
        assert psinas("trials", tmp_path / "run", *more)[0] == 0
    trends = psinas("trends", tmp_path / "run")
    if kind == "hostile":
        assert trends[0] == 0
    else:
        one_line(trends, "expected at least 3 complete trials, got")
    if kind in ("empty", "failed"):
        found = psinas("trials", tmp_path / "run", "--sort", "psi")
        one_line(found, "expected a trial that has psi, got none that is complete")
