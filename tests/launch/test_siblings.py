"""psinas finds its own four packages, whatever else has one of their names."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import one_line

ROOT = Path(__file__).parents[2]
FIND = "from importlib.util import find_spec as f; print(f('metrics').origin, f('nas').origin)"


def python(code: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | variables
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True
    )


def test_siblings_are_found_beside_launch_though_others_come_first(tmp_path) -> None:
    (tmp_path / "nas.py").write_text("raise RuntimeError")
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "__init__.py").write_text("")
    code = f"import sys; sys.path.append({str(ROOT)!r}); import launch; {FIND}"
    found = python(code, tmp_path, PYTHONPATH=str(tmp_path))
    assert found.stdout.split() == [str(ROOT / p / "__init__.py") for p in ("metrics", "nas")]


def test_a_package_of_our_name_that_is_there_already_is_named(tmp_path) -> None:
    (tmp_path / "metrics.py").write_text("")
    code = f"import metrics, sys; sys.path.append({str(ROOT)!r}); import launch"
    said = python(code, tmp_path).stderr.splitlines()[-1]
    assert "expected the package metrics of psinas" in said
    assert str(tmp_path / "metrics.py") in said


def test_a_distribution_that_overwrote_a_package_of_ours_is_one_line(psinas, monkeypatch) -> None:
    def broken(*_):
        raise ImportError("cannot import name 'ATTACKS' from 'metrics'")

    owners = {"metrics": ["psinas", "metrics"], "nas": ["psinas"]}
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: owners)
    monkeypatch.setattr("launch.commands.metrics.say", broken)
    one_line(psinas("metrics"), "the package metrics", "environment of its own")


def test_a_fault_without_another_distribution_stays_a_fault(psinas, monkeypatch) -> None:
    def broken(*_):
        raise AttributeError("no such thing")

    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: {})
    monkeypatch.setattr("launch.commands.metrics.say", broken)
    code, _, err = psinas("metrics")
    assert code == 1
    assert "a fault of psinas" in err


@pytest.mark.parametrize("name", ["random", "yaml"])
def test_files_in_the_current_directory_come_after_what_is_installed(tmp_path, name) -> None:
    (tmp_path / f"{name}.py").write_text("raise RuntimeError")
    (tmp_path / "own.py").write_text("")
    code = (
        f"import sys; sys.path.remove(''); sys.path.append({str(ROOT)!r}); "
        "from launch.config.modules import look_in; look_in(); import own, " + name
    )
    ended = python(code, tmp_path)
    assert ended.returncode == 0, ended.stderr
