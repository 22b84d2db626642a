"""``psinas trials`` for a program: the format that a file's name says, in UTF-8 in any locale."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pandas as pd
import pytest
from helpers import one_line, search_here

LATIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    document = {
        "name": "out",
        "data": {"name": "digits", "limit": {"train": 64, "validation": 40}},
        "space": {"name": "faulty_spaces:Faulty", "kinds": ["good", "déjà\r vu"]},
        "recipe": {"epochs": 0, "batch_size": 64, "adversary": "none"},
        "metrics": ["clean"],
        "objectives": {"clean_accuracy": "max"},
        "sampler": {"name": "grid"},
        "trials": 2,
    }
    return search_here(tmp_path_factory.mktemp("runs") / "run", document)


def test_the_name_of_a_file_says_its_format(run, psinas, tmp_path):
    read = {
        "json": pd.read_json,
        "parquet": pd.read_parquet,
        "csv": pd.read_csv,
        "txt": pd.read_csv,
    }
    for ending, reader in read.items():
        out = tmp_path / f"table.{ending}"
        assert psinas("trials", run, "--out", out) == (0, "", "")
        assert reader(out)["kind"].tolist() == ["good", "déjà\r vu"]
    assert psinas("trials", run, "--out", tmp_path / "x.json", "--format", "csv")[0] == 0
    assert len(pd.read_csv(tmp_path / "x.json")) == 2
    one_line(
        psinas("trials", run, "--out", tmp_path / "y.txt", "--format", "table"),
        "--format table: expected csv, json or parquet",
    )
    assert not (tmp_path / "y.txt").exists()


@pytest.mark.slow
@pytest.mark.parametrize("format", ["csv", "json"])
def test_a_locale_without_utf8_changes_nothing(run, format, tmp_path):
    command = "import launch.cli; launch.cli.main()"
    asked = ["trials", str(run), "--format", format]
    found = [
        subprocess.run(
            [sys.executable, "-c", command, *asked], capture_output=True, check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **more},
        ).stdout
        for more in ({}, LATIN)
    ]  # fmt: skip
    assert found[0] == found[1]
    if format == "json":
        assert json.loads(found[0])[1]["kind"] == "déjà\r vu"
    else:
        (tmp_path / "x.csv").write_bytes(found[0])
        assert pd.read_csv(tmp_path / "x.csv")["kind"][1] == "déjà\r vu"
