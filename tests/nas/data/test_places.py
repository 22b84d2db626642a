"""Where data lie is found, stored and changed apart from what they are called."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from nas.data.config import DataConfig
from nas.data.places import as_saved, find_path, located, path_of
from nas.errors import InputError


@pytest.fixture
def three(tmp_path, monkeypatch):
    """Return directories: of a configuration, the current one, of ``$PSINAS_DATA``."""
    places = [tmp_path / name for name in ("beside", "here", "data")]
    for place in places:
        place.mkdir()
    monkeypatch.chdir(places[1])
    monkeypatch.setenv("PSINAS_DATA", str(places[2]))
    return places


def find(config):
    return find_path(config, path_of(config.name))


def test_a_relative_path_is_found_beside_then_here_then_in_the_data_root(three, monkeypatch):
    config = DataConfig(name="npz:d.npz")
    assert located(config, beside=three[0]) == config
    for place in reversed(three):
        (place / "d.npz").touch()
        found = located(config, beside=three[0])
        assert found == replace(config, root=str(place))
        assert found.hash == config.hash
        monkeypatch.chdir("/")
        assert find(found) == place / "d.npz"
        monkeypatch.chdir(three[1])


def test_a_root_comes_before_the_current_directory(three):
    for place in three:
        (place / "d.npz").touch()
    assert find(DataConfig(name="npz:d.npz", root=str(three[0]))) == three[0] / "d.npz"
    assert find(DataConfig(name="npz:d.npz")) == three[1] / "d.npz"


def test_a_relative_root_is_stored_as_an_absolute_one(three):
    (three[0] / "sub").mkdir()
    config = DataConfig(name="mnist", root="sub")
    assert located(config, beside=three[0]).root == str(three[0] / "sub")
    (three[1] / "sub").mkdir()
    assert located(config).root == str(three[1] / "sub")


def test_named_datasets_stay_where_the_environment_says(three, monkeypatch):
    for name in ("mnist", "digits"):
        assert located(DataConfig(name=name)).root is None
    (three[1] / "d.npz").touch()
    assert located(DataConfig(name="npz:d.npz"), ["mnist"]).root is None  # mnist is elsewhere
    assert located(DataConfig(name="npz:d.npz"), ["digits"]).root == str(three[1])
    monkeypatch.setenv("PSINAS_DATA", "../data")
    assert Path(located(DataConfig(name="mnist")).root).resolve() == three[2].resolve()


def test_what_is_nowhere_names_where_it_was_looked_for(three):
    with pytest.raises(InputError) as error:
        find(DataConfig(name="folder:pets"))
    assert all(str(place / "pets") in str(error.value) for place in three[1:])


def test_a_file_has_one_name_in_a_run(three):
    (three[0] / "d.npz").touch()
    saved = DataConfig(name="npz:d.npz", root=str(three[0]))
    same = DataConfig(name=f"npz:{three[0]}/d.npz")
    assert as_saved(same, saved, known=False) == saved
    (three[1] / "e.npz").touch()
    other = DataConfig(name="npz:e.npz")
    assert as_saved(other, saved, known=True) == other


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("known", [True, False])
def test_a_file_that_moved_keeps_its_name_where_it_will_be_compared(
    three, tmp_path, absolute, known
):
    (three[0] / "sub").mkdir()
    (three[0] / "sub" / "d.npz").touch()
    saved = DataConfig(name="npz:sub/d.npz", root=str(three[0]))
    if absolute:
        saved = DataConfig(name=f"npz:{three[0]}/sub/d.npz")
    new = tmp_path / "new" / "sub"
    new.parent.mkdir()
    shutil.move(three[0] / "sub", new)
    asked = DataConfig(name=f"npz:{new}/d.npz")
    found = as_saved(asked, saved, known=known)
    assert found.name == (saved if known else asked).name
    assert find(found) == new / "d.npz"
    (new / "x.npz").touch()
    renamed = DataConfig(name=f"npz:{new}/x.npz")
    assert as_saved(renamed, saved, known=known) == renamed
