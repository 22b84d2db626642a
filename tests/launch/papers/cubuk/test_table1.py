"""Table 1 of Cubuk et al.: searches, retrained winners and the paper's rows by one command."""

from __future__ import annotations

import pandas as pd
import pytest
import yaml
from helpers import one_line

from launch.config.config import load_config
from launch.papers.cubuk.table1 import PAPER, PAPER_TEST
from launch.papers.registry import REPRODUCTIONS
from launch.papers.reproduction import Reproduction
from launch.runs.begin import make_directory, open_search, settle_config
from launch.runs.run import Run
from nas.errors import InputError

ASKED = {
    "scale": {"stem": "imagenet"},
    "data": {"limit": {"train": 200}},
    "recipes": [{"learning_rate": 0.1}, {"learning_rate": 0.02, "weight_decay": 0.0}],
    "held_out": 0.25,
    "test_images": 90,
}


@pytest.fixture
def two(tmp_path, tiny, monkeypatch):
    """Name a reproduction of two tiny searches that differ in their adversary."""
    sources = []
    for name, adversary in (("first", "pgd"), ("second", "none")):
        recipe = {**tiny["recipe"], "adversary": adversary}
        document = {**tiny, "name": name, "recipe": recipe, "retrain": ASKED}
        sources.append(str(tmp_path / f"{name}.yaml"))
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(document))
    view = REPRODUCTIONS["cubuk-table1"].view
    made = Reproduction("two", tuple(sources), view, {}, retrained=True)
    monkeypatch.setitem(REPRODUCTIONS, "two", made)
    return made


def test_every_search_has_its_row_behind_the_papers(two, tmp_path, psinas, in_process):
    arguments = ("reproduce", "two", "--out", tmp_path / "runs", "--set", "recipe.steps=1")
    code, printed, err = psinas(*arguments)
    assert code == 0, err
    table = printed[printed.index("white box") :].splitlines()
    assert [line.split()[0] for line in table[2:6]] == ["Madry", "Cubuk", "first", "second"]
    assert "PGD of 7 steps of 2/255: not to be compared." in table[-2]
    for name in ("first", "second"):
        assert Run(tmp_path / "runs" / name).config.recipe.steps == 1
    written = pd.read_csv(tmp_path / "runs" / "two.csv")
    assert written["model"].tolist() == [*(row.model for row in PAPER), "first", "second"]
    assert (tmp_path / "runs" / "two.png").exists()
    again = psinas(*arguments)[1]
    assert again[again.index("white box") :].splitlines()[2:6] == table[2:6]


def test_what_tells_the_searches_apart_cannot_be_laid_over_all(two, tmp_path, psinas):
    for key in ("recipe.adversary=fgsm", "recipe={epochs: 3}", "name=other"):
        result = psinas("reproduce", "two", "--out", tmp_path / "runs", "--set", key)
        one_line(result, f"--set {key.partition('=')[0]}: expected a key that all searches share")
    assert not (tmp_path / "runs").exists()


def test_a_search_begun_otherwise_is_refused_before_any_other_runs(
    two, tmp_path, psinas, in_process
):
    assert psinas("search", two.searches[1], "--out", tmp_path / "runs" / "second")[0] == 0
    arguments = ("reproduce", "two", "--out", tmp_path / "runs", "--set", "seed=5")
    one_line(psinas(*arguments), "second holds a search with another configuration", "seed")
    assert not (tmp_path / "runs" / "first").exists()


def test_a_start_that_was_refused_is_no_obstacle(two, tmp_path, psinas, in_process):
    """It left a configuration and a ledger without trials; the corrected command replaces them."""
    place = tmp_path / "runs" / "second"
    make_directory(place)
    begun = load_config(two.searches[1], ["seed=9"])
    open_search(place, settle_config(place, begun, resume=False, keep_trials=False))
    code, _, err = psinas("reproduce", "two", "--out", tmp_path / "runs")
    assert code == 0, err
    assert Run(place).config.seed == 0


def test_a_stopped_search_says_what_goes_on(two, tmp_path, psinas, in_process, monkeypatch):
    from launch.runs import searching

    real = searching.run_search

    def run_search(going, config, run, progress, **more):
        return config.name != "second" and real(going, config, run, progress, **more)

    monkeypatch.setattr(searching, "run_search", run_search)
    code, printed, _ = psinas("reproduce", "two", "--out", tmp_path / "runs")
    assert code == 130
    last = " ".join(printed.split()).rpartition("stopped: ")[2]
    assert "go on with: psinas reproduce two" in last


def test_an_experiment_with_another_trial_does_not_stand_in_for_the_winner(
    two, tmp_path, psinas, in_process
):
    assert psinas("reproduce", "two", "--out", tmp_path / "runs")[0] == 0
    run = Run(tmp_path / "runs" / "second")
    winner = run.best().number
    for row in (run.path / "retrain").glob("*/table1.json"):
        row.unlink()
    assert psinas("retrain", run.path, "--trial", 3 - winner)[0] == 0
    with pytest.raises(InputError, match="expected the winner of .*second retrained"):
        two.view([run], None)
    assert psinas("retrain", run.path)[0] == 0
    assert f"second: trial {winner} with" in "\n".join(two.view([run], None).lines)


def test_the_papers_rows_are_attacked_as_they_say():
    assert [row.clean for row in PAPER] == [0.873, 0.932]
    assert all(row.test == PAPER_TEST for row in PAPER)
    assert PAPER_TEST["epsilon"] == pytest.approx(8 / 255)


def test_searches_in_small_are_told_apart_by_their_training_alone():
    asked = REPRODUCTIONS["cubuk-table1"]
    configs = asked.configs(asked.sources(quick=True, data=None), ["retrain.recipe.epochs=7"])
    assert [config.retrain.recipe for config in configs] == [{"epochs": 7}] * 3
    assert [config.recipe.adversary for config in configs] == ["none", "step-ll", "pgd"]
