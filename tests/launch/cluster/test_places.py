"""A search whose configuration, modules and data lie elsewhere, among files with names of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

ROOT = Path(__file__).parents[3]
SPACE = """
from dataclasses import dataclass
from torch import nn
from search_spaces import SearchSpace

@dataclass(frozen=True)
class Space(SearchSpace):
    def decisions(self):
        return {"width": (4, 8)}

    def network(self, architecture, task):
        channels, height, width = task.shape
        return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, task.classes))
"""
COMMON = ("launch", "nas", "metrics", "search_spaces", "random", "yaml", "torch", "queue", "pandas")


@pytest.fixture
def run_psinas(tmp_path):
    """Return a function that runs ``psinas`` in a directory of its own and returns its output."""

    def run(*arguments, cwd, code=0, **variables):
        # As the installed command starts: the current directory is not on the path.
        start = f"import sys; sys.path.remove(''); sys.path.append({str(ROOT)!r}); "
        start += "sys.argv[0] = 'psinas'; from launch.cli import main; main()"
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        environment |= {"XDG_CONFIG_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
        environment |= {"PYTHONPATH": str(ROOT), **variables}
        command = [sys.executable, "-c", start, *map(str, arguments)]
        ended = subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, encoding="utf-8"
        )
        assert ended.returncode == code, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    return run


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
@pytest.mark.slow
def test_everything_lies_beside_the_configuration(tmp_path, run_psinas) -> None:
    home, here, there = tmp_path / "home: é", tmp_path / "here", tmp_path / "there"
    for directory in (home, here, there):
        directory.mkdir()
    for name in COMMON:
        (here / f"{name}.py").write_text("raise RuntimeError('a file of the user')\n")
    (home / "sp.py").write_text(SPACE)
    rng = np.random.default_rng(0)
    images = {f"x_{part}": rng.integers(0, 256, (60, 8, 8), np.uint8) for part in ("train", "test")}
    labels = {f"y_{part}": np.arange(60) % 3 for part in ("train", "test")}
    np.savez(home / "images.npz", **images, **labels)
    document = {
        "data": {"name": "npz:images.npz"},
        "space": {"name": "sp:Space"},
        "recipe": {"epochs": 1, "adversary": "none", "batch_size": 20},
        "metrics": ["clean"],
        "objectives": {"clean_accuracy": "max"},
        "sampler": {"name": "grid"},
        "trials": 1,
        "resources": {"workers": 1},
    }
    (home / "mine.yaml").write_text(yaml.safe_dump(document))

    run_psinas("search", home / "mine.yaml", "--out", "run", cwd=here)
    # The run and its export know where the module lies, wherever they are asked from.
    run_psinas(
        "export", "--formats", "weights", here / "run", "--trial", 0, "--out", "out", cwd=there
    )
    assert "clean_accuracy" in run_psinas("score", "out", "--limit", 20, cwd=there)
    shown = run_psinas("search", "--resume", "--out", here / "run", "--trials", 2, cwd=there)
    assert "2 trials in" in shown
