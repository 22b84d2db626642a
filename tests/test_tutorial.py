"""The tutorial and the page on extensions are executed as they are written, block after block."""

from __future__ import annotations

import pytest
from pages import DOCS, run_page

PREPARED = {
    "python3 -m venv .venv": "an environment is there",
    "source .venv/bin/activate": "an environment is there",
    "pip install --constraint constraints.txt .": "psinas is installed",
}


@pytest.mark.ray
def test_the_tutorial_runs_as_written(monkeypatch, tmp_path, psinas, request):
    """Its first search runs in Ray; those after it in this process, since starting Ray is long."""
    monkeypatch.chdir(tmp_path)

    def then(line):
        if line == "psinas search first.yaml":
            request.getfixturevalue("in_process")

    printed = run_page(DOCS / "tutorial.md", psinas, PREPARED, then)
    assert "on the Pareto front of pgd_accuracy, parameters" in printed[2]
    for name in ("model.safetensors", "model.onnx", "model.pt2", "model.py"):
        assert (tmp_path / "winner" / name).exists()
    assert (tmp_path / "runs" / "first" / "report.html").exists()
    assert (tmp_path / "bracket.csv").exists()


def test_extensions_run_as_written(monkeypatch, tmp_path, psinas, in_process):
    monkeypatch.chdir(tmp_path)
    printed = run_page(DOCS / "extending.md", psinas, {})
    assert len(in_process) == 4
    assert "dusk_accuracy" in printed[1]
    assert "darker_accuracy" in printed[2]
