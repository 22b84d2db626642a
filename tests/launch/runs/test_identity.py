"""A run's data: their checksum is written once and held to, and they are found from anywhere."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import TINY, one_line
from PIL import Image

from launch.config.config import parse_config
from launch.config.identity import settle_data
from launch.runs.begin import make_directory, settle_config
from launch.runs.replay import replay
from launch.runs.run import Run
from nas.data.checksum import of_arrays
from nas.data.config import DataConfig
from nas.data.datasets import load_images
from nas.errors import InputError
from nas.ledger.study import open_study
from nas.ledger.version import VERSION_KEY

RNG = np.random.default_rng(0)
SPACE = {"name": "depth-channels", "depth": [1], "channels": [4, 6], "stem": "small"}


def write(path, *, flip=None, seed=0):
    """Write 120 images of three classes; ``flip`` names an array of which one number changes."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for part, count in (("train", 120), ("test", 60)):
        arrays[f"x_{part}"] = rng.integers(0, 256, (count, 8, 8), dtype=np.uint8)
        arrays[f"y_{part}"] = np.arange(count) % 3
    if flip:
        arrays[flip].flat[0] ^= 1
    np.savez(path, **arrays)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return a directory, which is the current one, of a data file and a configuration."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    write("d.npz")
    data = {"name": "npz:d.npz", "limit": {"train": 60, "validation": 20}}
    document = {**TINY, "data": data, "space": SPACE, "metrics": ["clean"], "trials": 1}
    document |= {"objectives": {"clean_accuracy": "max"}, "sampler": {"name": "random"}}
    Path("tiny.yaml").write_text(yaml.safe_dump(document))
    return home


@pytest.fixture
def run(place, psinas, in_process):
    code, _, err = psinas("search", "tiny.yaml", "--out", "run")
    assert code == 0, err
    return place / "run"


def saved(run):
    return yaml.safe_load((run / "config.yaml").read_text())


def forget(run):
    """Make a run one of before there were checksums and places."""
    document = saved(run)
    del document["data_checksum"]
    document["data"]["root"] = None
    (run / "config.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    for path in run.glob("**/best/architecture.json"):
        description = json.loads(path.read_text())
        del description["trial"]["data_checksum"]
        path.write_text(json.dumps(description))


COMMANDS = {
    "resume": ("search", "--resume", "--out", "run", "--trials", 2),
    "replay": ("replay", "run", "--trial", 0),
    "retrain": ("retrain", "run", "--set", "recipe.epochs=1"),
    "trial": ("score", "run:0"),
    "export": ("score", "run/best"),
    "validation": ("score", "run/best", "--split", "validation"),
}


def test_the_checksums_are_those_of_both_parts(run):
    with np.load("d.npz") as arrays:
        expected = {
            part: of_arrays(arrays[f"x_{part}"][:, None], arrays[f"y_{part}"])
            for part in ("train", "test")
        }
    assert saved(run)["data_checksum"] == {"npz:d.npz": expected}
    exported = json.loads((run / "best" / "architecture.json").read_text())["trial"]
    assert exported["data_checksum"] == expected


@pytest.mark.parametrize(
    ("command", "flip"),
    [
        ("resume", "x_train"), ("resume", "y_test"), ("replay", "y_train"), ("retrain", "x_test"),
        ("trial", "x_test"), ("export", "y_test"), ("validation", "x_train"),
    ],
)  # fmt: skip
def test_changed_data_are_refused(run, psinas, command, flip):
    expected = saved(run)["data_checksum"]["npz:d.npz"][flip[2:]]
    before = {p: p.read_bytes() for p in run.rglob("*") if p.suffix in (".yaml", ".csv", ".json")}
    write("d.npz", flip=flip)
    with np.load("d.npz") as arrays:
        part = flip[2:]
        got = of_arrays(arrays[f"x_{part}"][:, None], arrays[f"y_{part}"])
    one_line(psinas(*COMMANDS[command]), "npz:d.npz", str(run.parent / "d.npz"), expected, got)
    assert {p: p.read_bytes() for p in before} == before
    write("d.npz")
    code, _, err = psinas(*COMMANDS[command])
    assert code == 0, err


@pytest.mark.parametrize("command", COMMANDS)
def test_what_was_made_before_there_were_checksums_goes_on(run, psinas, command):
    forget(run)
    code, _, err = psinas(*COMMANDS[command])
    assert code == 0, err
    assert ("data_checksum" in saved(run)) == (command == "resume")
    if command == "resume":
        assert len(Run(run).table()) == 2
        write("d.npz", seed=1)
        more = ("search", "--resume", "--out", "run", "--trials", 3)
        one_line(psinas(*more), "npz:d.npz", "have changed")


@pytest.mark.parametrize("command", COMMANDS)
def test_data_are_found_from_any_directory(run, psinas, command, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    write("d.npz", seed=1)  # another file of that name
    told = [str(a).replace("run", str(run), 1) if str(a).startswith("run") else a
            for a in COMMANDS[command]]  # fmt: skip
    code, _, err = psinas(*told)
    assert code == 0, err


def test_keys_of_trials_are_those_of_the_name_as_it_was_written(run):
    """So that the ledgers of earlier versions, which had no absolute paths, are known again."""
    (row,) = Run(run).results
    assert (
        row["key"].split("-")[2]
        == DataConfig(name="npz:d.npz", limit=Run(run).config.data.limit).hash
    )


@pytest.mark.parametrize("root", [True, False])
def test_data_that_moved_are_the_same_data(run, psinas, tmp_path, root):
    (tmp_path / "new").mkdir()
    shutil.move("d.npz", tmp_path / "new" / "d.npz")
    resume = COMMANDS["resume"]
    one_line(psinas(*resume), "expected a readable .npz or folder at", "data.root")
    where = ("--set", f"data.root={tmp_path / 'new'}") if root else (
        "--set", f"data.name=npz:{tmp_path / 'new' / 'd.npz'}")  # fmt: skip
    code, _, err = psinas(*resume, *where)
    assert code == 0, err
    assert saved(run)["data"]["root"] == str(tmp_path / "new")
    assert {r["key"].split("-")[2] for r in Run(run).results} == {Run(run).config.data.hash}
    write(tmp_path / "new" / "d.npz", seed=1)
    one_line(psinas(*resume[:-1], 3, *where), "have changed")


def test_an_absolute_name_of_the_same_file_goes_on(run, psinas):
    same = ("--set", f"data.name=npz:{run.parent / 'd.npz'}")
    code, _, err = psinas(*COMMANDS["resume"], *same)
    assert code == 0, err
    assert saved(run)["data"]["name"] == "npz:d.npz"
    write("other.npz", seed=1)
    other = (
        "search",
        "--resume",
        "--out",
        "run",
        "--trials",
        3,
        "--set",
        "data.name=npz:other.npz",
    )
    one_line(psinas(*other), "another configuration", "data.name")


def test_a_corrected_start_takes_other_data(place, psinas, in_process, monkeypatch):
    """A start that was refused before its first trial binds nobody."""
    config = parse_config(yaml.safe_load(Path("tiny.yaml").read_text()))
    make_directory(place / "run")
    config = settle_config(place / "run", config, resume=False, keep_trials=False)
    settle_data(place / "run" / "config.yaml", {config.data.source: load_images(config.data)})
    first = saved(place / "run")["data_checksum"]
    write("d.npz", seed=1)
    code, _, err = psinas("search", "tiny.yaml", "--out", "run")
    assert code == 0, err
    assert saved(place / "run")["data_checksum"].keys() == first.keys()
    assert saved(place / "run")["data_checksum"] != first


def test_several_datasets_have_a_checksum_each(place):
    write("e.npz", seed=1)
    document = yaml.safe_load(Path("tiny.yaml").read_text())
    document["vary"] = {"data.name": ["npz:d.npz", "npz:e.npz", "digits"]}
    make_directory(place / "run")
    config = settle_config(place / "run", parse_config(document), resume=False, keep_trials=False)
    configs = [DataConfig(name=n, root=config.data.root) for n in document["vary"]["data.name"]]
    sources = {c.source: load_images(c) for c in configs}
    settle_data(place / "run" / "config.yaml", sources)
    found = saved(place / "run")["data_checksum"]
    assert list(found) == ["npz:d.npz", "npz:e.npz", "digits"]
    assert len({part for parts in found.values() for part in parts.values()}) == 6
    write("e.npz", seed=2)
    sources = {c.source: load_images(c) for c in configs}
    with pytest.raises(InputError, match=r"npz:e.npz .*of its train images"):
        settle_data(place / "run" / "config.yaml", sources)
    assert saved(place / "run")["data_checksum"] == found


def test_image_files_are_known_by_what_is_in_them(place, psinas, in_process):
    for name in ("cat", "dog"):
        Path("pets", name).mkdir(parents=True)
        for i in range(30):
            pixels = RNG.integers(0, 256, (9, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(f"pets/{name}/{i:02}.png")
    asked = ("--set", "data={name: folder:pets, image_size: 8}")
    code, _, err = psinas("search", "tiny.yaml", "--out", "run", *asked)
    assert code == 0, err
    kept = saved(place / "run")["data_checksum"]["folder:pets"]
    assert set(kept) == {"train", "test"}
    os.rename("pets", "animals")
    os.symlink("animals", "pets")
    code, _, err = psinas("replay", "run", "--trial", 0)
    assert code == 0, err
    for i in range(30):
        Image.fromarray(np.zeros((9, 9, 3), dtype=np.uint8)).save(f"pets/cat/{i:02}.png")
    with pytest.raises(InputError, match=f"folder:pets .*{kept['train']}"):
        replay(Run("run"), 0)
    one_line(psinas("score", "run/best"), "folder:pets", kept["test"])


def test_a_ledger_of_a_newer_psinas_is_refused_and_left(run, psinas):
    study = open_study(run)
    assert study.user_attrs[VERSION_KEY] == 1
    study.set_user_attr(VERSION_KEY, 2)
    before = (run / "trials.csv").read_bytes()
    for command in (COMMANDS["resume"], COMMANDS["replay"], ("trials", "run")):
        one_line(psinas(*command), "by a newer psinas: expected a ledger of version <= 1, got 2")
    assert (run / "trials.csv").read_bytes() == before
    study.set_user_attr(VERSION_KEY, 1)
    code, _, err = psinas(*COMMANDS["resume"])
    assert code == 0, err
