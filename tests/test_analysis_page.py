"""docs/analysis.md: its Python and its commands run as they stand, on runs written by hand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from written_runs import write_run

PAGE = (Path(__file__).parents[1] / "docs" / "analysis.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.S | re.M)
CHOICES = {"depth": [2, 4, 8], "channels": [8, 16, 32]}
GOALS = {"pgd_accuracy": "max", "psi": "min"}


@pytest.fixture
def runs(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for name in ("digits", "digits-2", "tpe-0", "tpe-1", "random-0", "random-1"):
        rows = [
            {
                "params": {"depth": depth, "channels": channels},
                "architecture": {"hash": f"{depth}-{channels}"},
                "scores": {
                    "pgd_accuracy": depth / 10 + rng.random() / 10,
                    "clean_accuracy": rng.random(),
                    "psi": 40 + rng.random(),
                    "parameters": float(depth * channels),
                    "macs": float(depth * channels**2),
                },
            }
            for depth in CHOICES["depth"]
            for channels in CHOICES["channels"]
        ]
        seed = int(name[-1]) if name[-1].isdigit() else 0
        write_run(tmp_path / "runs" / name, rows, CHOICES, GOALS, seed=seed)
    monkeypatch.chdir(tmp_path)


def test_its_python_runs_from_top_to_bottom(runs, capsys):
    names: dict = {}
    blocks = [text for kind, text in BLOCKS if kind == "python"]
    assert len(blocks) == 5
    for block in blocks:
        exec(block, names)
    assert names["samplers"].by == names["volumes"].by == "seed"
    assert len(names["front"]) >= 1
    assert names["found"]["decision"][0] == "depth"


def test_its_commands_run(runs, psinas):
    lines = [line for kind, text in BLOCKS if kind == "bash" for line in text.splitlines()]
    assert len(lines) == 3
    for line in lines:
        command, *arguments = shlex.split(line)
        assert command == "psinas"
        assert psinas(*arguments)[0] == 0, line
