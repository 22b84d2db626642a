"""psinas reproduce: on small searches, from the run directory to table, figure and one-liners."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from helpers import one_line, search_here

from launch.config.config import load_config
from launch.config.documents import preset_names
from launch.papers.psi import printed as paper
from launch.papers.psi.grids import grid_lines, model_name
from launch.papers.psi.untrained import _inside, _saturation
from launch.papers.registry import REPRODUCTIONS, reproduction
from nas.errors import InputError
from nas.ledger.table import load_table

GRID = [
    "space.depth=[2, 3]",
    "space.channels=[8, 12, 16]",
    "recipe.epochs=8",
    "recipe.batch_size=32",
    "data.limit={train: 700, validation: 60, test: 120}",
    "metrics=[clean, psi-init, psi-epoch1]",
    "objectives={clean_accuracy: max}",
]
RESNET = [
    "space.depth=[18]",
    "recipe.epochs=3",
    "recipe.batch_size=32",
    "data.limit={train: 400, validation: 20, test: 24}",
    "metrics=[clean]",
    "objectives={clean_accuracy: max}",
]
NOISE = [
    "data.image_size=16",
    "space.depth=[2, 4]",
    "space.channels=[32, 48]",
    "vary.repeat=[0, 1]",
]


def searched(tmp_path_factory, preset, assignments):
    run = tmp_path_factory.mktemp("runs") / preset
    return search_here(run, load_config(preset, assignments).resolved())


@pytest.fixture(scope="module")
def grid_run(tmp_path_factory):
    return searched(tmp_path_factory, "psi-table3-digits", GRID)


@pytest.fixture(scope="module")
def resnet_run(tmp_path_factory):
    return searched(tmp_path_factory, "psi-table1-digits", RESNET)


@pytest.fixture(scope="module")
def noise_run(tmp_path_factory):
    return searched(tmp_path_factory, "psi-table2-quick", NOISE)


def reproduce(psinas, name, run, assignments):
    sets = [part for a in assignments for part in ("--set", a)]
    code, out, err = psinas("reproduce", name, "--quick", "--out", run, *sets)
    assert code == 0, err
    picture = run / f"{name}.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert f"picture in {picture}" in out
    return out, pd.read_csv(run / f"{name}.csv")


@pytest.mark.parametrize("name", ["psi-table3", "psi-figure5"])
def test_table_3(psinas, grid_run, name):
    out, table = reproduce(psinas, name, grid_run, GRID)
    assert len(table) == 6
    assert "6 models on" in out
    assert (table["psi_low"] < table["psi"]).all()
    assert (table["psi"] < 1.02 * table["psi_limit"]).all()
    record = json.loads((grid_run / "common-correct.json").read_text())["chosen"]
    assert f"{len(record['indices'])} of the {record['correct']} test images (of 120)" in out
    assert table["test_accuracy"].tolist() == list(record["models"].values())


def test_figure_6_and_7_share_the_measurements(psinas, grid_run):
    _, ladder = reproduce(psinas, "psi-figure6", grid_run, GRID)
    assert len(ladder) == 6 * 13
    assert ladder["post_attack_accuracy"].between(0, 1).all()
    out, table = reproduce(psinas, "psi-figure7", grid_run, GRID)
    at = ladder[np.isclose(ladder["radius"], 0.01)]["post_attack_accuracy"].to_numpy()
    expected = np.corrcoef(table["psi"], at)[0, 1] if at.std() else math.nan
    line = next(line for line in out.splitlines() if line.strip().startswith("with Ψ̂"))
    assert float(line.split()[2]) == pytest.approx(expected, abs=6e-4, nan_ok=True)
    assert "-0.911 at r = 0.01" in out


def test_what_was_measured_is_not_measured_again(psinas, grid_run, monkeypatch):
    reproduce(psinas, "psi-table3", grid_run, GRID)

    def refuse(*_arguments, **_settings):
        raise AssertionError("measured again")

    monkeypatch.setattr("nas.analysis.common_correct.susceptibility", refuse)
    monkeypatch.setattr("nas.analysis.common_correct.correct", refuse)
    reproduce(psinas, "psi-table3", grid_run, GRID)


def test_table_1_and_its_figures(psinas, resnet_run):
    out, table = reproduce(psinas, "psi-table1", resnet_run, RESNET)
    assert table["paper"].tolist() == [781.2]
    assert table["ratio"][0] == pytest.approx(table["psi"][0] / 781.2)
    out, states = reproduce(psinas, "psi-figure2", resnet_run, RESNET)
    assert states["state"].tolist() == ["input", "conv1", "layer1", "layer2", "layer3", "layer4",
                                        "output"]  # fmt: skip
    assert states["layer"].tolist() == [0, 1, 5, 9, 13, 17, 18]
    growth = states["growth"].to_numpy()
    assert f"18 layers = {math.log(growth[-1]) / 18:.3f}" in out
    slope = np.polyfit(states["layer"][:-1], np.log(growth[:-1]), 1)[0]
    assert f"before the head = {slope:.3f}" in out
    _, ladder = reproduce(psinas, "psi-figure3", resnet_run, RESNET)
    assert ladder["radius"].max() / ladder["radius"].min() == pytest.approx(1e4)


@pytest.mark.parametrize("name", ["psi-table2", "psi-figure4"])
def test_table_2(psinas, noise_run, name):
    out, cells = reproduce(psinas, name, noise_run, NOISE)
    assert len(cells) == 4
    assert (cells["seeds"] == 2).all()
    trials = load_table(noise_run)
    first = trials[(trials["depth"] == 2) & (trials["channels"] == 32)]["psi"]
    assert cells["psi"][0] == pytest.approx(math.sqrt(first.prod()))
    assert cells["ratio"][0] == pytest.approx(cells["psi"][0] / paper.TABLE_2[2, 32])
    assert math.isnan(cells["ratio"][1])  # 48 channels: not in the paper
    assert "D <= 32: 2 of 2 cells" in out
    assert "D = 64" not in out.split("How far")[0]


def test_the_papers_numbers():
    assert len(paper.TABLE_2) == len(paper.TABLE_3) == 24
    assert paper.TABLE_2[64, 256] == 48.721
    assert paper.TABLE_3[4, 64] == 1658.209
    assert math.log(paper.RESNET18_GROWTH) / 18 == pytest.approx(paper.RESNET18_LAMBDA, abs=5e-4)


def test_a_grid_is_printed_beside_the_papers():
    cells = pd.DataFrame({"depth": [2, 2, 4], "channels": [32, 8, 32], "psi": [1.498, 7, 5]})
    lines = grid_lines("Ψ̂", cells, "psi", paper.TABLE_2)
    assert lines[1].split() == ["D", "C", "=", "8", "C", "=", "32"]
    assert lines[2].split() == ["2", "7", "1.498", "0.749", "2"]
    assert lines[3].split() == ["4", "nan", "5", "1.021", "4.9"]


def test_every_preset_that_a_reproduction_needs_is_there():
    names = preset_names()
    for name in REPRODUCTIONS:
        asked = reproduction(name)
        for quick, data in ((False, None), (True, None), *((True, data) for data in asked.quick)):
            assert set(asked.sources(quick=quick, data=data)) <= set(names)
    for name in ("psi-table1", "psi-figure7"):
        assert list(reproduction(name).quick) == ["digits", "fashion-mnist", "food101-10"]
    with pytest.raises(InputError, match="psi-table1.*got 'psi-table9'"):
        reproduction("psi-table9")


def test_mistakes_are_one_line(psinas, tmp_path, grid_run):
    one_line(psinas("reproduce", "psi-table9"), "psi-figure7", "psi-table9")
    one_line(psinas("reproduce", "psi-table3", "--data", "digits"), "--quick")
    one_line(psinas("reproduce", "psi-table3", "--quick", "--data", "mnist"), "food101-10", "mnist")
    one_line(psinas("reproduce", "psi-table2", "--quick", "--data", "digits"), "noise")
    result = psinas("reproduce", "psi-table3", "--quick", "--out", grid_run)
    one_line(result, "another configuration", "recipe.epochs")


def test_what_a_reproduction_needs_is_asked_for_before_the_search(psinas, tmp_path):
    out = tmp_path / "run"
    space = "space={name: resnet, depth: [18]}"
    result = psinas("reproduce", "psi-table3", "--quick", "--out", out, "--set", space)
    one_line(result, "depth, channels", "none of channels")
    result = psinas("reproduce", "psi-table2", "--quick", "--out", out, "--set", "metrics=[psi]")
    one_line(result, "psi_1.5e-4", "psi_limit")
    assert not out.exists()


def test_every_weight_is_kept_whatever_the_grid():
    asked = reproduction("psi-table3")
    (config,) = asked.configs(("psi-table3-digits",), ["vary.repeat=[0, 1, 2]"])
    assert config.keep.top == 45


def test_conclusions_are_drawn_from_the_cells():
    cells = pd.DataFrame(
        {
            "depth": [2, 64],
            "channels": [32, 32],
            "frozen_1e-5": [1.0, 1000.0],
            "frozen_1e-4": [1.0, 100.0],
            "frozen_1e-3": [1.0, 10.0],
        }
    )
    assert _saturation(cells)[0].startswith("At D = 64 ψ·r hardly grows")
    assert _saturation(cells[:1]) == ["Outputs saturate at no depth: ψ·r grows with r throughout."]
    assert _inside(pd.DataFrame({"depth": [3], "psi": [1.0], "paper": [math.nan]}), "psi") == []
    printed = pd.DataFrame({"depth": [2, 4, 64], "psi": [1.0, 9.0, 1.0], "paper": [5.0, 8.0, 4.0]})
    assert _inside(printed, "psi")[:2] == [
        "D <= 32: 1 of 2 cells within x/÷ 2 of the paper, the farthest x/÷ 5.00",
        "D = 64: 0 of 1 cells within x/÷ 3 of the paper, the farthest x/÷ 4.00",
    ]


def test_models_are_told_apart():
    assert model_name({"depth": 4, "repeat": 1, "recipe.learning_rate": 0.1}) == (
        "D=4 repeat=1 learning_rate=0.1"
    )


def test_too_few_models_for_a_correlation(psinas, tmp_path_factory):
    settings = [*GRID, "space.depth=[2]", "space.channels=[16]", "recipe.epochs=4"]
    run = searched(tmp_path_factory, "psi-table3-digits", settings)
    sets = [part for a in settings for part in ("--set", a)]
    result = psinas("reproduce", "psi-figure7", "--quick", "--out", run, *sets)
    one_line((result[0], "", result[2]), "at least 4 models", "got 1")


def test_weights_that_are_gone_are_named(psinas, tmp_path_factory):
    settings = [*GRID, "space.depth=[2]", "recipe.epochs=1"]
    run = searched(tmp_path_factory, "psi-table3-digits", settings)
    for number in (0, 1):
        (run / "trials" / str(number) / "weights.safetensors").unlink()
    sets = [part for a in settings for part in ("--set", a)]
    result = psinas("reproduce", "psi-table3", "--quick", "--out", run, *sets)
    one_line(result, "none of 0, 1", "psinas replay")
