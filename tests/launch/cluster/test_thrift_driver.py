"""Reuse and a bound on disk through Ray, as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers import search_here

from launch.runs.run import Run
from nas.ledger.table import load_table

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),
]  # one Ray at a time
ROOT = Path(__file__).parents[3]
TIMINGS = ["train_seconds", "score_seconds", "seconds"]


def psinas(*arguments):
    """Return the exit code and the output of a command, run in a process of its own."""
    command = [sys.executable, "-c", "from launch.cli import main; main()", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300
    )
    return done.returncode, done.stdout.decode()


def test_what_another_run_has_is_not_trained_and_the_disk_stays_within_its_bound(tiny, tmp_path):
    """The first command halts at its bound; the second goes on, and takes over what is left."""
    tiny["resources"] = {"workers": 2}
    whole = search_here(tmp_path / "whole", tiny)
    config, run = tmp_path / "config.yaml", tmp_path / "run"
    config.write_text(yaml.safe_dump(tiny))

    code, log = psinas("search", config, "--out", run, "--set", "keep.disk_bytes=40 kB")
    assert code == 130, log
    assert log.count("no further trial begins, and what runs comes to its end: expected") == 1
    assert f"go on with: psinas search --resume --out {run}" in log
    done = load_table(run)
    assert 0 < len(done) < 4
    assert set(done["status"]) == {"complete"}  # what ran came to its end

    enough = "keep.disk_bytes=1 GB"
    code, log = psinas("search", "--resume", "--out", run, "--reuse", whole, "--set", enough)
    assert code == 0, log
    assert log.count("(reused from ") == 4 - len(done)
    table = load_table(run)
    assert list(table["reused_from"] == "") == [n < len(done) for n in range(4)]
    expected = load_table(whole).drop(columns=TIMINGS)
    assert table.drop(columns=[*TIMINGS, "reused_from"]).equals(expected)
    winner = str(Run(run).best().number)
    assert (run / "trials" / winner / "weights.safetensors").exists()
    assert (run / "best" / "model.safetensors").exists()
