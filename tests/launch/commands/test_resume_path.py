"""``--resume`` goes on with the run that is named, and begins no other in its place."""

from __future__ import annotations

import pytest
import yaml
from helpers import one_line

from launch.runs.nearby import nearby_runs


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Return a working directory with two runs in ``runs/`` and one beside it."""
    monkeypatch.chdir(tmp_path)
    for run in ("runs/alpha", "runs/beta", "gamma"):
        (tmp_path / run).mkdir(parents=True)
        (tmp_path / run / "config.yaml").write_text("name: x\n")
    (tmp_path / "runs" / "no-run").mkdir()
    return tmp_path


@pytest.mark.parametrize("arguments", [["--out", "runs/alhpa"], ["--out", "new/place"], []])
def test_a_mistyped_path_begins_nothing(arguments, here, psinas):
    before = sorted(here.rglob("*"))
    result = psinas("search", "--resume", *arguments)
    got = arguments[-1] if arguments else "runs/digits"
    one_line(result, f"expected a run directory, got {got}", "runs/alpha", "runs/beta", "gamma")
    assert "no-run" not in result[2]
    assert sorted(here.rglob("*")) == before


def test_the_likeliest_run_comes_first(here):
    assert nearby_runs(here / "runs" / "bet")[0].endswith("beta")


def test_a_run_given_as_a_source_is_told_its_option(here, psinas):
    one_line(psinas("search", "--resume", "runs/alpha"), "psinas search --resume --out runs/alpha")


def test_other_commands_name_the_runs_nearby(here, psinas):
    one_line(psinas("trials", "runs/alpa"), "got runs/alpa", "runs/alpha")


def test_a_named_source_is_begun_and_then_gone_on_with(here, psinas, tiny, in_process):
    (here / "tiny.yaml").write_text(yaml.safe_dump({**tiny, "metrics": ["clean", "pgd"]}))
    for _ in range(2):  # as `make search` does, again and again
        code, out, err = psinas("search", "tiny.yaml", "--resume", "--out", "runs/tiny")
        assert (code, err) == (0, "")
        assert "4 trials in runs/tiny" in out
    code, out, _ = psinas("search", "--resume", "--out", "runs/tiny")
    assert (code, "4 trials in runs/tiny" in out) == (0, True)
