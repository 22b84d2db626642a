"""Code that a run from elsewhere names is not run before the user says yes."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from helpers import one_line, search_here

from launch.config.modules import VARIABLE, look_in
from launch.config.trust import admit, remember, trusted_file
from nas.errors import InputError

SPACE = """
from dataclasses import dataclass
from pathlib import Path
from torch import nn
from search_spaces import SearchSpace

Path(__file__).with_suffix(".ran").write_text("")

@dataclass(frozen=True)
class Space(SearchSpace):
    def decisions(self):
        return {"width": (4, 8)}

    def network(self, architecture, task):
        channels, height, width = task.shape
        return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, task.classes))
"""


@pytest.fixture(autouse=True)
def _nothing_trusted(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))


@pytest.fixture(autouse=True)
def _path_as_before(monkeypatch):
    monkeypatch.setenv(VARIABLE, "[]")
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    look_in()
    sys.modules.pop("somebodys_space", None)


@pytest.fixture
def foreign(tmp_path, tiny) -> Path:
    """Return a run with somebody's space, of which this machine knows nothing."""
    (tmp_path / "somebodys_space.py").write_text(SPACE)
    look_in([tmp_path])
    tiny |= {
        "space": {"name": "somebodys_space:Space"},
        "metrics": ["clean"],
        "objectives": {"clean_accuracy": "max"},
        "modules": [str(tmp_path)],
    }
    run = search_here(tmp_path / "run", tiny)
    trusted_file().unlink()
    (tmp_path / "somebodys_space.ran").unlink()
    del sys.modules["somebodys_space"]
    return run


def test_a_foreign_run_runs_nothing_before_a_yes(foreign, psinas, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(foreign.parent)
    ran = tmp_path / "somebodys_space.ran"
    code, out, _ = psinas("trials", foreign)  # a table needs no code
    assert (code, out.count("\n") >= 3) == (0, True)
    for command in (
        ("export", "--formats", "weights", foreign, "--trial", 0, "--out", tmp_path / "out"),
        ("replay", foreign, "--trial", 0),
        ("score", f"{foreign}:0"),
        ("score", foreign / "best"),
        ("draw", foreign / "best", "--out", tmp_path / "cell.svg"),
        ("search", "--resume", "--out", foreign),
        ("search", foreign / "config.yaml", "--out", tmp_path / "other"),
    ):
        one_line(psinas(*command), "somebodys_space:Space", "--trust-code", "PSINAS_TRUST=1")
        assert not ran.exists(), command
    monkeypatch.setenv("PSINAS_TRUST", "0")  # so that it is put back when --trust-code sets it
    code, out, err = psinas(
        "export", "--formats", "weights", foreign, "--trial", 0, "--out", "out", "--trust-code"
    )
    assert code == 0, err
    assert ran.exists()
    monkeypatch.setenv("PSINAS_TRUST", "0")
    assert (
        psinas("export", "--formats", "weights", foreign, "--trial", 1, "--out", "out")[0] == 0
    )  # once is enough


def test_a_search_that_was_started_is_a_yes(tmp_path, monkeypatch) -> None:
    (tmp_path / "somebodys_space.py").write_text(SPACE)
    monkeypatch.chdir(tmp_path)
    document = {"space": {"name": "somebodys_space:Space"}, "modules": [str(tmp_path)]}
    with pytest.raises(InputError, match="that you have not searched with"):
        admit(document, "run")
    remember(document)
    admit(document, "run")
    shutil.move(tmp_path / "somebodys_space.py", tmp_path / "elsewhere.py")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "somebodys_space.py").write_text(SPACE)
    with pytest.raises(InputError, match="lib"):  # the name alone is no yes
        admit({**document, "modules": [str(tmp_path / "lib")]}, "run")


def test_installed_code_needs_a_yes_as_well() -> None:
    with pytest.raises(InputError, match="subprocess:Popen in "):
        admit({"sampler": {"name": "subprocess:Popen"}}, "run")


def test_a_run_without_code_needs_none(tmp_path) -> None:
    admit({"space": {"name": "resnet"}, "data": {"name": "npz:x.npz"}}, "run")
    assert not trusted_file().exists()


@pytest.mark.skipif(os.name == "nt", reason="directories without write permission")
def test_a_home_that_cannot_be_written_does_not_stop_a_search(monkeypatch, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    remember({"sampler": {"name": "subprocess:Popen"}})
    assert yaml.safe_load((tmp_path / "file").read_text()) is None
