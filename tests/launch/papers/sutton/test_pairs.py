"""Pairs of classes, noise training and ImageNet's row: from small searches to table and picture."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import one_line, search_here
from PIL import Image

from launch.config.config import load_config
from launch.papers.registry import REPRODUCTIONS
from launch.papers.sutton.measured import MEASURED
from launch.papers.sutton.printed import CIFAR, FASHION_MNIST, GTSRB, printed_for
from launch.runs.run import Run
from launch.runs.subject import trial_model
from metrics import correct, gradient_line
from metrics.robustness.accuracy import wilson
from metrics.stability import UnitDraws
from metrics.stability.theory.caps import cap_fraction
from nas.data.arrays import prepare_test
from nas.data.datasets import load_test_images

STABILITY = "{name: stability, limit: 15, draws: 30, deltas: [1, 10], scalings: 40, mode: loss}"
COMMON = [
    "space.filters=[4]",
    "space.units=[8]",
    "recipe.epochs=4",
    "recipe.batch_size=16",
    f"metrics=[clean, {STABILITY}]",
    "objectives={clean_accuracy: max}",
]
DIGITS = "data={name: digits, limit: {train: 150, validation: 20, test: 40}}"
PAIRS = [*COMMON, DIGITS, "vary={data.classes: [[0, 1], [3, 8]]}"]
NOISE = [
    *COMMON,
    DIGITS,
    "vary={data.classes: [[0, 1]], recipe: [{adversary: none}, {adversary: noise-cube, "
    "epsilon: 0.2}, {adversary: noise-ball, epsilon: 0.2}]}",
]


def reproduce(psinas, name, run, assignments):
    sets = [part for a in assignments for part in ("--set", a)]
    code, out, err = psinas("reproduce", name, "--quick", "--out", run, *sets)
    assert code == 0, err
    assert (run / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    return out, pd.read_csv(run / f"{name}.csv")


def searched(tmp_path_factory, preset, assignments):
    run = tmp_path_factory.mktemp("runs") / preset
    return search_here(run, load_config(preset, assignments).resolved())


@pytest.fixture(scope="module")
def pairs_run(tmp_path_factory):
    return searched(tmp_path_factory, "sutton-fashion-mnist-quick", PAIRS)


def test_a_pair_is_measured_on_training_and_test_images(psinas, pairs_run):
    out, table = reproduce(psinas, "sutton-fashion-mnist", pairs_run, PAIRS)
    assert table["problem"].tolist() == ["0 / 1", "0 / 1", "3 / 8", "3 / 8"]
    assert table["part"].tolist() == ["train", "test"] * 2
    assert table["accuracy_of"].tolist()[1::2] == [40, 40]
    run = Run(pairs_run)
    for row in table[table["part"] == "test"].to_dict("records"):
        trial = run.trial(row["number"])
        model = trial_model(run, trial)
        data = trial.trial.data
        split = prepare_test(load_test_images(data), data)
        x, y = split.images(), split.labels
        right = correct(model, x, y)
        assert row["accuracy_count"] == int(right.sum())
        x, y, right = x[:15], y[:15], right[:15]
        line = gradient_line(model, x, y, mode="loss", scalings=40)
        attacked = right & line.size.isfinite()
        assert row["adversarial_count"] == int(attacked.sum())
        assert row["adversarial_of"] == int(right.sum())
        draws = UnitDraws.of((1, 8, 8), 30).at(range(30))
        for delta in (1, 10):
            hits = 0
            for i in attacked.nonzero().flatten().tolist():
                with torch.no_grad():
                    noisy = model(x[i] + delta * float(line.size[i]) * draws)
                hits += bool((noisy.argmax(dim=1) != y[i]).any())
            assert row[f"random_{delta}_count"] == hits
            of = row[f"random_{delta}_of"]
            low, high = wilson(hits / of, of)
            assert row[f"random_{delta}_low"] == pytest.approx(100 * low)
            assert row[f"random_{delta}_high"] == pytest.approx(100 * high)
        plane = 1 - (1 - float(cap_fraction(64, 0.1))) ** 30
        assert row["random_10_of_a_plane"] == pytest.approx(100 * plane, rel=1e-9)
        assert row["l2_mean"] == pytest.approx(float(line.size[attacked].mean()), rel=1e-4)
    medians = table[table["part"] == "test"]["accuracy"].median()
    (line,) = [line for line in out.splitlines() if line.startswith("ours, test, median of 2")]
    assert float(line.split()[5]) == pytest.approx(medians, abs=0.006)
    assert "the paper" not in out.partition("Not the paper's")[0]  # it has no digits
    assert "4 filters in the first block (the paper: 64)" in out


def test_what_was_measured_is_not_measured_again(psinas, pairs_run, monkeypatch):
    reproduce(psinas, "sutton-fashion-mnist", pairs_run, PAIRS)

    def refuse(*_arguments, **_settings):
        raise AssertionError("measured again")

    monkeypatch.setattr("launch.papers.sutton.measured.StabilityShares.found", refuse)
    reproduce(psinas, "sutton-fashion-mnist", pairs_run, PAIRS)
    record = pairs_run / "trials" / "0" / MEASURED
    kept = json.loads(record.read_text())
    record.write_text(json.dumps({**kept, "key": "another"}))
    with pytest.raises(AssertionError, match="measured again"):
        reproduce(psinas, "sutton-fashion-mnist", pairs_run, PAIRS)
    monkeypatch.undo()
    reproduce(psinas, "sutton-fashion-mnist", pairs_run, PAIRS)
    assert json.loads(record.read_text()) == kept


def test_training_on_noise_stands_beside_plain_training(psinas, tmp_path_factory):
    run = searched(tmp_path_factory, "sutton-noise-quick", NOISE)
    out, table = reproduce(psinas, "sutton-noise", run, NOISE)
    rows = table[table["part"] == "test"]
    assert rows["training"].tolist() == ["none", "noise-cube", "noise-ball"]
    assert rows["half_side"].tolist() == [0, 0.2, 0.2]
    assert rows["noise_l2"].tolist() == pytest.approx([0, *[0.2 * math.sqrt(64 / 3)] * 2])
    for name in ("none", "noise-cube", "noise-ball"):
        assert any(line.startswith(name) for line in out.splitlines())
    sizes = rows["l2_mean"].to_numpy()
    low, high = np.sort(sizes[1:] / sizes[0])
    assert f"{low:.2f} to {high:.2f} times as long" in out


def test_published_nets_on_a_folder_of_images(psinas, tmp_path_factory):
    """Random weights here: nothing is downloaded."""
    place = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for label in ("cat", "dog", "owl"):
        (place / label).mkdir()
        for i in range(10):
            pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / label / f"{i}.png")
    sets = [
        f"data={{name: 'folder:{place}', image_size: 32, validation_share: 0.9}}",
        "space.model=[resnet18, squeezenet1_0]",
        "metrics=[clean, {name: stability, mode: loss, deltas: [10], draws: 3, scalings: 8}]",
    ]
    run = searched(tmp_path_factory, "sutton-imagenet-quick", sets)
    out, table = reproduce(psinas, "sutton-imagenet", run, sets)
    assert table["model"].tolist() == ["resnet18", "squeezenet1_0"]
    trials = Run(run).table()
    assert table["accuracy"].tolist() == (100 * trials["clean_accuracy"]).tolist()
    assert table["adversarial"].tolist() == (100 * trials["stability_adversarial"]).tolist()
    assert table["random_10"].tolist() == pytest.approx(
        (100 * trials["stability_random_10"]).tolist(), nan_ok=True
    )
    assert "Weights are random" in out
    assert "the paper, vgg19" in out


def test_the_papers_rows_stand_beside_their_data():
    assert printed_for("fashion-mnist") == FASHION_MNIST
    assert printed_for("npz:gtsrb-7.npz") == GTSRB
    assert printed_for("npz:/data/cifar10-small.npz") == CIFAR
    assert printed_for("digits") == ()
    assert FASHION_MNIST[1].random == {2: 0.09, 5: 13.35, 10: 57.43}


def test_the_problems_are_the_papers():
    pairs = {
        name: load_config(REPRODUCTIONS[name].searches[0]).vary["data.classes"]
        for name in ("sutton-cifar10", "sutton-fashion-mnist", "sutton-gtsrb")
    }
    assert pairs["sutton-cifar10"] == [[i, j] for i in range(10) for j in range(i + 1, 10)]
    assert pairs["sutton-fashion-mnist"] == [[k, k + 1] for k in range(9)]
    signs = [0, 42, 38, 33, 25, 18]
    assert pairs["sutton-gtsrb"] == [list(pair) for pair in zip(signs, signs[1:], strict=False)]


def test_what_is_missing_is_said(psinas, pairs_run, tmp_path):
    one_line(
        psinas("reproduce", "sutton-fashion-mnist", "--quick", "--set", "vary={}"), "data.classes"
    )
    one_line(
        psinas("reproduce", "sutton-theory", "--set", "seed=1"), "--set: expected none, got seed=1"
    )
    one_line(psinas("reproduce", "sutton-theory", "--data", "digits"), "--data: expected none")
    (tmp_path / "file").write_text("")
    one_line(psinas("reproduce", "sutton-theory", "--out", tmp_path / "file"), "--out: expected")
