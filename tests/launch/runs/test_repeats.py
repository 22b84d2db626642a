"""A search with ``repeats``: what its sampler, table, export and replay say of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers import search_here

from launch.config.config import load_config
from launch.runs.run import Run
from nas.errors import InputError
from nas.ledger.study import open_study
from nas.ledger.table import load_table


@pytest.fixture(scope="module")
def repeated_run(tmp_path_factory):
    document = {
        "name": "repeated",
        "data": {"name": "digits", "limit": {"train": 96, "validation": 60}},
        "space": {"name": "depth-channels", "depth": [1], "channels": [4, 6], "stem": "small"},
        "recipe": {"epochs": 1, "batch_size": 64, "adversary": "none", "epsilon": 0.1},
        "metrics": ["clean"],
        "objectives": {"clean_accuracy": "max"},
        "sampler": {"name": "random"},
        "trials": 2,
        "repeats": 3,
    }
    return search_here(tmp_path_factory.mktemp("runs") / "run", document)


def test_a_trial_is_an_architecture_and_the_sampler_hears_its_mean(repeated_run):
    run = Run(repeated_run)
    assert [len(r["repeats"]) for r in run.results] == [3, 3]
    table = load_table(repeated_run)
    for row, result, told in zip(
        table.to_dict("records"), run.results, open_study(repeated_run).trials, strict=True
    ):
        values = [of["clean_accuracy"] for of in result["repeats"]]
        assert row["clean_accuracy"] == pytest.approx(np.mean(values), abs=1e-15)
        assert row["clean_accuracy_std"] == pytest.approx(np.std(values, ddof=1), abs=1e-15)
        assert told.values == [row["clean_accuracy"]]
        assert row["epochs"] == 3
    ends = table["clean_accuracy"] - table["clean_accuracy_std"]
    assert run.best().number == int(ends.idxmax())


def test_the_table_shows_mean_and_deviation(repeated_run, psinas):
    code, out, _ = psinas("trials", repeated_run)
    first = load_table(repeated_run).iloc[0]
    shown = f"{first['clean_accuracy']:.4g} ± {first['clean_accuracy_std']:.2g}"
    assert (code, shown in out) == (0, True)
    assert "_std" not in out
    assert "clean_accuracy_std" in psinas("trials", repeated_run, "--format", "csv")[1]


def test_an_export_says_whose_weights_it_has(repeated_run):
    winner = Run(repeated_run).best()
    kept = winner.result["kept_repeat"]
    description = json.loads((repeated_run / "best" / "architecture.json").read_text())
    assert description["trial"]["repeat"] == kept
    assert description["trial"]["repeats"] == winner.result["repeats"]
    card = (repeated_run / "best" / "README.md").read_text()
    assert f"repeat {kept} of 0 ... 2" in card
    own = winner.result["repeats"][kept]["clean_accuracy"]
    line = next(line for line in card.splitlines() if line.startswith("| clean_accuracy |"))
    assert line.endswith(f"| {own:.6g} |")


def test_replay_gives_every_mean_and_deviation_again(repeated_run, psinas):
    code, out, err = psinas("replay", repeated_run, "--trial", 1)
    assert (code, err) == (0, "")
    assert "equal to the last digit" in out
    assert "clean_accuracy_std" in out


def test_repeats_are_not_searched_as_well():
    with pytest.raises(InputError, match=r"^repeats: expected 1 where vary\.repeat is searched"):
        load_config("digits", ["repeats=3", "vary={repeat: [0, 1]}"])
    with pytest.raises(InputError, match=r"^repeats: expected greater than or equal to 1, got 0"):
        load_config("digits", ["repeats=0"])
