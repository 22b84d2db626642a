"""Modules and files of a configuration lie beside it, and are found again from anywhere."""

from __future__ import annotations

import json
import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import yaml

from launch.config.config import load_config
from launch.config.modules import (
    VARIABLE,
    check_found,
    code_in,
    doubles,
    file_of,
    follow,
    look_in,
    looked_in,
)
from nas.errors import InputError

METRIC = """
from dataclasses import dataclass
from typing import ClassVar
from metrics import Metric

@dataclass(frozen=True, kw_only=True)
class M(Metric):
    default_label: ClassVar[str] = "{label}"
    suffixes: ClassVar[tuple] = ("_x",)

    def measure(self, model, images, labels, generator):
        return (1.0,)
"""


@pytest.fixture(autouse=True)
def _path_as_before(monkeypatch):
    monkeypatch.setenv(VARIABLE, "[]")
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield
    look_in()
    for name in set(sys.modules) - before:
        if name.startswith("mine"):
            del sys.modules[name]


@pytest.fixture
def places(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """Return the directory of a configuration and the current one."""
    beside, here = tmp_path / "beside", tmp_path / "here"
    beside.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    return beside, here


def test_directories_are_looked_in_last_and_in_order(places) -> None:
    beside, here = map(str, places)
    before = list(sys.path)
    look_in([beside])
    assert sys.path == [*before, beside, here]
    look_in()
    assert sys.path == [*before, here]
    assert looked_in() == [here]


def test_a_worker_puts_them_last_though_ray_put_one_first(places, monkeypatch) -> None:
    beside, here = map(str, places)
    before = list(sys.path)
    monkeypatch.setenv(VARIABLE, json.dumps([beside, here]))
    sys.path.insert(0, here)
    follow()
    assert sys.path == [*before, beside, here]


def test_code_is_what_can_be_imported_and_no_path() -> None:
    document = {
        "space": {"name": "sp:Space"},
        "metrics": ["clean", {"name": "a.b:C.D"}],
        "data": {"name": "npz:/x.npz"},
        "storage": "sqlite:///x.db",
        "vary": {"recipe.adversary": ["none", "é:Ü"]},
    }
    assert code_in(document) == ["a.b:C.D", "sp:Space", "é:Ü"]


def test_the_module_beside_the_configuration_is_taken_and_recorded(places) -> None:
    beside, here = places
    (beside / "mine_one.py").write_text(METRIC.format(label="beside"))
    (here / "mine_one.py").write_text(METRIC.format(label="here"))
    document = {"metrics": ["mine_one:M"], "objectives": {"beside_x": "max"}}
    (beside / "mine.yaml").write_text(yaml.safe_dump(document))
    config = load_config(beside / "mine.yaml")
    assert config.modules == [str(beside), str(here)]
    (line,) = doubles(config.model_dump(), config.modules)
    assert line.index(str(beside)) < line.index(str(here))


def test_a_module_of_the_current_directory_is_found_too(places) -> None:
    beside, here = places
    (here / "mine_two.py").write_text(METRIC.format(label="here"))
    document = {"metrics": ["mine_two:M"], "objectives": {"here_x": "max"}}
    (beside / "mine.yaml").write_text(yaml.safe_dump(document))
    config = load_config(beside / "mine.yaml")
    assert str(here) in config.modules
    assert doubles(config.model_dump(), config.modules) == []


def test_nothing_is_recorded_without_modules_of_a_users(places) -> None:
    beside, _ = places
    (beside / "mine.yaml").write_text("trials: 3\n")
    assert load_config(beside / "mine.yaml").modules == []
    assert load_config("digits", ["sampler={name: 'nas.samplers.registry:tpe'}"]).modules == []


def test_named_directories_are_relative_to_the_configuration(places) -> None:
    beside, _ = places
    (beside / "lib").mkdir()
    (beside / "mine.yaml").write_text("modules: [lib]\n")
    assert load_config(beside / "mine.yaml").modules == [str(beside / "lib")]


def test_directories_are_a_list(places) -> None:
    with pytest.raises(InputError, match="modules: expected a list of directories, got 'lib'"):
        load_config("digits", ["modules=lib"])


def test_paths_lie_beside_the_configuration_if_they_are_there(places) -> None:
    beside, here = places
    for directory in (beside, here):
        np.savez(directory / "both.npz", x=np.zeros(1))
    np.savez(here / "here.npz", x=np.zeros(1))
    (beside / "images").mkdir()
    document = {
        "data": {"name": "npz:both.npz", "root": "images"},
        "vary": {"data.name": ["npz:both.npz", "npz:here.npz", "folder:images"]},
    }
    (beside / "mine.yaml").write_text(yaml.safe_dump(document))
    found = load_config(beside / "mine.yaml")
    assert found.data.name == f"npz:{beside / 'both.npz'}"
    assert found.data.root == str(beside / "images")
    assert found.vary["data.name"] == [
        f"npz:{beside / 'both.npz'}",
        "npz:here.npz",
        f"folder:{beside / 'images'}",
    ]
    # The command line's are of the current directory.
    laid = load_config(beside / "mine.yaml", ["data.name=npz:both.npz"])
    assert laid.data.name == "npz:both.npz"


def test_paths_stay_as_written_where_the_configuration_is_here(places, monkeypatch) -> None:
    beside, _ = places
    monkeypatch.chdir(beside)
    np.savez("own.npz", x=np.zeros(1))
    Path("mine.yaml").write_text("data: {name: 'npz:own.npz'}\n")
    assert load_config("mine.yaml").data.name == "npz:own.npz"


def test_a_module_that_only_this_process_has_is_refused(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "mine_alone", types.ModuleType("mine_alone"))
    with pytest.raises(InputError, match="a worker cannot go on without the module mine_alone"):
        check_found({"space": {"name": "mine_alone:S"}})
    check_found({"space": {"name": "json:JSONEncoder"}, "metrics": ["mine_nowhere:M"]})


def test_the_file_of_a_name_is_found_without_importing_it(places) -> None:
    _, here = places
    (here / "mine_raises.py").write_text("raise RuntimeError\n")
    look_in()
    assert file_of("mine_raises.part:Thing") == str(here / "mine_raises.py")
    assert file_of("mine_nowhere:Thing") is None
    assert os.path.basename(str(file_of("json:x"))) == "__init__.py"
