"""A run directory, opened: read once, as light as its table, also one of an earlier version."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers import TINY, search_here

from launch.config.config import parse_config
from launch.runs import replay, run
from launch.runs.run import Run
from nas.errors import InputError
from nas.trial.evaluation import evaluate
from search_spaces import load

OLD = Path(__file__).parent / "old-run"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return search_here(tmp_path_factory.mktemp("runs") / "tiny", TINY)


def test_an_export_reads_the_ledger_and_the_configuration_once(
    finished, psinas, tmp_path, monkeypatch
):
    read = []

    def counted(name, real):
        def call(*arguments, **settings):
            read.append(name)
            return real(*arguments, **settings)

        return call

    monkeypatch.setattr(run, "read_records", counted("ledger", run.read_records))
    monkeypatch.setattr("launch.config.config.parse_config", counted("config", parse_config))
    monkeypatch.setattr("optuna.load_study", counted("optuna", None))
    code, _, err = psinas(
        "export",
        "--formats",
        "weights",
        finished,
        "--best",
        "pgd_accuracy",
        "--out",
        tmp_path / "e",
    )
    assert code == 0, err
    assert sorted(read) == ["config", "ledger"]


def test_a_run_knows_its_table_its_trials_and_its_best(finished):
    found = Run(finished)
    table = pd.read_csv(finished / "trials.csv")
    assert found.table()["number"].tolist() == table["number"].tolist() == [0, 1, 2, 3]
    assert found.legend.told_apart == found.config.plan().told_apart == ["depth", "channels"]
    assert found.legend.objectives == {"pgd_accuracy": "max"}
    best = found.best()
    assert best.number == table["pgd_accuracy"].idxmax()
    assert found.best("parameters").number == table["parameters"].idxmin()
    assert dict(found.trial(2).trial.architecture.choices) == dict(
        table.loc[2, ["depth", "channels"]]
    )
    with pytest.raises(InputError, match=r"expected a score of a complete trial \(.*pgd_accuracy"):
        found.best("moon")
    with pytest.raises(InputError, match="expected a run directory"):
        Run(finished / "trials")


def test_a_table_is_shown_without_torch_ray_and_optuna(finished):
    code = f"""
import sys
sys.argv = ["psinas", "trials", {str(finished)!r}, "--pareto", "pgd_accuracy,parameters"]
from launch.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code
print("LOADED", *{{"torch", "ray", "optuna", "scipy"}} & set(sys.modules))
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout.splitlines()[-1] == "LOADED", answer.stderr
    assert "pgd_accuracy" in answer.stdout


@pytest.fixture
def old(tmp_path):
    """Copy a run directory that was made before rooms, and its metrics, were moved."""
    return shutil.copytree(OLD, tmp_path / "old")


def test_an_earlier_run_opens(old, psinas):
    found = Run(old)
    assert found.config.retrain.test_images == 60
    assert len(found.table()) == 6
    assert found.config.metrics[8]["pgd_steps"] == 4
    code, out, err = psinas("trials", old)
    assert code == 0, err
    assert "* on the Pareto front of pgd_accuracy, psi" in out


def test_an_earlier_run_is_exported(old, psinas, tmp_path):
    code, _, err = psinas(
        "export", "--formats", "weights", old, "--trial", 4, "--out", tmp_path / "e"
    )
    assert code == 0, err
    with torch.no_grad():
        logits = load(tmp_path / "e")(torch.rand(2, 1, 8, 8))
    assert logits.shape == (2, 10)
    metrics = json.loads((tmp_path / "e" / "architecture.json").read_text())["trial"]["metrics"]
    assert [m["name"] for m in metrics[8]["attacks"]] == ["fgsm", "pgd", "apgd"]


def test_an_earlier_trial_draws_from_the_same_seeds(old):
    """Its integers are equal on any machine; the last digits are on one that adds as it did."""
    row = Run(old).trial(4)
    again = evaluate(row.trial, threads=1)
    assert again.status == "complete"
    old, new = row.result["scores"], again.scores
    assert old.keys() <= new.keys()
    assert all(replay.later(name, old, new) for name in new.keys() - old.keys())
    for name in ("parameters", "macs", "psi_init_passes"):
        assert again.scores[name] == row.result["scores"][name]
    there = row.result["environment"]
    same = {k: v for k, v in there.items() if again.environment[k] != v}
    if not same and new["psi_init"] == old["psi_init"]:
        # What comes after training does not: adversaries climb the margin since.
        before = [n for n in new if n.startswith("psi_init") and "seconds" not in n]
        assert len(before) == 8
        assert not [n for n in before if not replay._same(new[n], old[n])]


def test_an_earlier_row_is_replayed_without_what_it_could_not_have():
    old = {"pgd_accuracy": 1.0, "pgd_accuracy_stderr": 0.0, "my_accuracy_stderr": 0.1, "psi": 1.0}
    new = {**old, "pgd_accuracy_stderr": 0.01, "pgd_accuracy_low": 0.9, "pgd_accuracy_high": 1.0}
    anew = ["pgd_accuracy_stderr", "pgd_accuracy_low", "pgd_accuracy_high"]
    assert [name for name in new if replay.later(name, old, new)] == anew
    assert not [name for name in new if replay.later(name, new, new)]


def test_an_earlier_run_goes_on(old, psinas, in_process):
    code, out, err = psinas("search", "--resume", "--out", old, "--set", "retrain=null")
    assert code == 0, err
    assert "6 trials in" in out
    assert Run(old).id == "0320d6755e984fd5861bae516dc610f2"
    code, _, err = psinas(
        "search", "--resume", "--out", old, "--trials", 7, "--set", "retrain=null"
    )
    assert code == 0, err
    assert len(Run(old).table()) == 7
