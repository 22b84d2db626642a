"""Where a search may be written, and what it says of the psinas that ran it."""

from __future__ import annotations

import subprocess

import pytest
from helpers import one_line

from launch.config import versions as running
from launch.runs import begin
from nas.errors import InputError


def test_somebodys_config_yaml_is_no_run(tmp_path, psinas) -> None:
    for text in ("trials: 1\n", "a: [\n", "- 1\n"):
        (tmp_path / "config.yaml").write_text(text)
        one_line(psinas("search", "--trials", 1, "--out", tmp_path), "config.yaml")
        assert (tmp_path / "config.yaml").read_text() == text
    (tmp_path / "config.yaml").write_text("trials: 1\n")
    with pytest.raises(InputError, match="that no search has written"):
        begin.make_directory(tmp_path)


def test_a_checkout_without_git_has_no_commit(monkeypatch, tmp_path) -> None:
    def missing(*_, **__):
        raise FileNotFoundError(2, "No such file or directory: 'git'")

    monkeypatch.setattr(subprocess, "run", missing)
    monkeypatch.setattr(running, "HOME", tmp_path)
    (tmp_path / ".git").mkdir()
    assert running.versions()["commit"] is None
