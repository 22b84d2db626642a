"""``psinas compare`` and ``psinas importance`` on runs of every kind, for people and programs."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pandas as pd
import pytest
from helpers import one_line
from written_runs import write_run

CHOICES = {"depth": [1, 2, 3, 4], "na\x1b[1mme": ["<script>", "ü\n"]}
GOALS = {"pgd_accuracy": "max", "psi": "min"}


def rows(n, gain=0.0, **more):
    names = list(CHOICES)
    return [
        {
            "params": {names[0]: 1 + i % 4, names[1]: CHOICES[names[1]][i % 2]},
            "scores": {"pgd_accuracy": (i % 4) / 10 + gain * (1 + i % 3), "psi": 2.0 + i},
            "architecture": {"hash": f"h{i}"},
            **more,
        }
        for i in range(n)
    ]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    failed = {"status": "error", "reason": "<b>", "scores": {}}
    made = {
        "good": rows(12, 0.1),
        "plain": rows(12),
        "empty": [],
        "single": rows(1),
        "failed": rows(3, **failed),
        "killed": [*rows(5), {**rows(1)[0], "status": "running"}],
    }
    for name, some in made.items():
        write_run(root / name, some, CHOICES, GOALS)
    for seed in range(3):
        write_run(root / "many" / f"s{seed}", rows(4 + seed, 0.1), CHOICES, GOALS, seed=seed)
        write_run(root / "few" / f"s{seed}", rows(4), CHOICES, GOALS, seed=seed)
    return root


def test_a_comparison_is_told_with_its_interval(runs, psinas):
    code, out, err = psinas("compare", runs / "good", runs / "plain", "--score", "pgd_accuracy")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    expected = "pgd_accuracy (max), mean over the complete trials, paired by architecture, n = 12"
    assert lines[0] == expected
    assert lines[1].strip() == "good: 0.35"
    assert lines[3].startswith("  difference 0.2 [0.1")
    assert lines[3].endswith("good is better")
    assert "architectures on both sides" in lines[4]


def test_programs_get_a_row_for_each_objective(runs, psinas):
    asked = ("compare", runs / "good", runs / "plain", "--by", "none")
    table = pd.read_csv(io.StringIO(psinas(*asked, "--format", "csv")[1]))
    assert table["score"].tolist() == list(GOALS)
    assert table["difference"].tolist() == pytest.approx([0.2, 0.0])
    found = json.loads(psinas(*asked, "--format", "json")[1])
    assert [row["needed"] is None for row in found] == [False, True]
    assert {row["run_a"] for row in found} == {"good"}


def test_folders_of_runs_are_paired_by_seed(runs, psinas):
    code, out, _ = psinas("compare", runs / "many", runs / "few", "--score", "pgd_accuracy")
    assert code == 0
    assert "best of a run after 4 trials, paired by seed, n = 3" in out
    one_line(psinas("compare", runs / "many", runs / "none"), "a folder of such", "none")


@pytest.mark.parametrize("odd", ["empty", "failed"])
def test_a_run_without_a_score_is_one_line(odd, runs, psinas):
    line = f"{odd}: expected a complete trial with pgd_accuracy, got none"
    one_line(psinas("compare", runs / "good", runs / odd), line)
    one_line(psinas("compare", runs / odd, runs / "good"), line)


def test_odd_runs_say_what_is_there(runs, psinas):
    said = {
        "empty": "too few trials: expected at least 4 complete ones, got 0",
        "single": "too few trials: expected at least 4 complete ones, got 1",
        "failed": "left out: 3 error",
        "killed": "left out: 1 running",
    }
    for name, line in said.items():
        code, out, _ = psinas("importance", runs / name)
        assert code == 0
        assert line in out
    assert "no interval" in psinas("compare", runs / "good", runs / "single")[1]
    assert psinas("compare", runs / "good", runs / "killed")[0] == 0


def test_importance_is_a_table_with_intervals(runs, psinas):
    code, out, _ = psinas("importance", runs / "good", runs / "plain", "--resamples", "20")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("pgd_accuracy (max): what tells the best tenth")
    assert lines[1].split() == ["decision", "importance", "95", "%", "n"]
    assert lines[2].startswith("depth")
    assert "\x1b" not in out
    found = json.loads(psinas("importance", runs / "good", "--format", "json")[1])
    assert [row["decision"] for row in found] == list(CHOICES)
    assert sum(row["importance"] for row in found) == pytest.approx(1)


def test_a_forest_is_planted_on_request(runs, psinas):
    asked = ("importance", runs / "good", "--method", "fanova", "--resamples", "2")
    assert "(fANOVA)" in psinas(*asked)[1]
    one_line(psinas("importance", runs / "good", "--score", "pgd"), "expected a score", "'pgd'")


def test_neither_waits_for_torch_or_ray(runs):
    for command in (["importance"], ["compare", str(runs / "plain")]):
        asked = ["psinas", *command, str(runs / "good")]
        code = (
            f"import sys; sys.argv = {asked!r}; import launch.cli\n"
            "try: launch.cli.main()\n"
            "except SystemExit as end: assert not end.code, end.code\n"
            "assert not {'torch', 'ray', 'optuna'} & set(sys.modules), set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
