"""Bounds of LeNets against attacks: from two small searches to table and picture."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import search_here
from sklearn.datasets import load_digits

from launch.config.config import load_config
from launch.papers.peck import bounds as bounds_module
from launch.papers.peck.bounds import bounds
from launch.papers.peck.measured import MEASURED, measured
from launch.papers.peck.printed import CIFAR, MNIST, printed_for
from launch.papers.registry import REPRODUCTIONS
from launch.runs.run import Run
from launch.runs.subject import trial_model
from launch.show.reporter import Reporter
from launch.show.view import write_view
from metrics import correct, minimal_fgsm
from metrics.bounds.lower import lower_bounds
from nas.data.arrays import prepare_test
from nas.data.config import Limit
from nas.data.datasets import load_test_images

MODES = ("paper", "certified", "tight")
TEST = 24


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return a plain and a robust search of one tiny LeNet each, on digits of 16 x 16 pixels."""
    place = tmp_path_factory.mktemp("peck")
    pixels, labels = load_digits(return_X_y=True)
    pixels = (pixels.reshape(-1, 8, 8) * 15.9).astype(np.uint8).repeat(2, 1).repeat(2, 2)
    file = place / "mnist-16.npz"
    np.savez(file, x_train=pixels[:500], y_train=labels[:500], x_test=pixels[500:],
             y_test=labels[500:])  # fmt: skip
    common = [
        f"data={{name: 'npz:{file}', limit: {{train: 300, validation: 20, test: {TEST}}}}}",
        "space.filters=[2]",
        "space.units=[8]",
        "recipe.epochs=4",
        "recipe.batch_size=16",
    ]
    bracket = "metrics=[clean, {name: bracket, limit: 6, epsilon: 0.01, budget: 20}]"
    own = {
        "peck-mnist-quick": common,
        "peck-mnist-robust-quick": [*common, "recipe.steps=1", bracket],
    }
    return [
        Run(search_here(place / name, load_config(name, sets).resolved()))
        for name, sets in own.items()
    ]


@pytest.fixture(scope="module")
def view(runs):
    return bounds(runs, Reporter())


def subject(run):
    row = run.trial(0)
    split = prepare_test(load_test_images(row.trial.data), row.trial.data)
    return trial_model(run, row), split.images(), split.labels


@pytest.mark.parametrize("which", [0, 1])
def test_every_row_measured_anew(view, runs, which):
    model, x, y = subject(runs[which])
    with torch.no_grad():
        own = model(x).argmax(1)
    table = view.table[view.table["search"] == runs[which].config.name].set_index("of")
    attack = minimal_fgsm(model, x, own, limit=100 / 255, tolerance=0.01 / 255)
    some = attack.size.isfinite()
    assert 3 < int(some.sum())
    norms = (attack.images - x)[some].double().flatten(1).norm(dim=1).numpy()
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(
        torch.nn.functional.cross_entropy(model(x), own, reduction="sum"), x
    )
    printed = (attack.size * (gradient != 0).flatten(1).sum(1).sqrt())[some].numpy()
    x = x.detach()
    for what, values in (("fgsm", norms), ("fgsm as printed", printed)):
        row = table.loc[what]
        assert (row["kind"], row["images"]) == ("upper bound", len(values))
        expected = [
            values.mean(),
            np.median(values),
            values.std(ddof=1),
            values.min(),
            values.max(),
        ]
        assert row[["mean", "median", "sd", "min", "max"]].tolist() == pytest.approx(
            expected, rel=1e-5
        )
    for mode in MODES:
        bound = lower_bounds(model, x, own, mode=mode, linear=False)
        radii = bound.radius.numpy()
        row = table.loc[mode]
        assert (row["kind"], row["images"], row["d"]) == ("lower bound", TEST, 256)
        assert row["median"] == pytest.approx(np.median(radii))
        assert row["violations"] == int((norms < radii[some]).sum()) == 0
        assert row["least_log10_ratio"] == pytest.approx(np.log10(norms / radii[some]).min())
        first = 0 if which == 0 else view.lines.index("", 1)
        shown = [line for line in view.lines[first:] if line.startswith(f"{mode}  ")]
        for layer in bound.layers:
            if layer.form.formula != "1":
                line = shown.pop(0)
                cells = re.split(r" {2,}", line)
                assert cells[1:3] == [layer.name, layer.form.formula]
                assert float(cells[3]) == pytest.approx(layer.form.gain, rel=1e-3)
                assert cells[4].startswith(layer.form.source)
                assert cells[4].endswith(layer.form.note)
    data = runs[which].trial(0).trial.data
    every = prepare_test(load_test_images(data), replace(data, limit=Limit()))
    right = int(correct(model, every.images(), every.labels).sum())
    assert any(f"right {right} of 1297 test images" in line for line in view.lines)


def test_the_papers_rows_stand_beside_the_plain_net_alone(view):
    text = "\n".join(view.lines)
    assert text.count("the paper, Table 1, / 256") == text.count("the paper, Table 2, / 256") == 1
    assert re.search(r"Table 1, / 256 +0\.9334 +0\.8843 +0\.4655 +2\.3e-05 +3\.307", text)
    assert re.search(r"Table 2, / 256 +7\.274e-08 +6\.547e-08 ", text)
    (row,) = view.table[
        (view.table["of"] == "fgsm as printed") & (view.table["training"] == "plain")
    ].index
    ours = view.table.loc[row, "mean"] * 255 / 256
    line = next(line for line in view.lines if "/ 256, 0...255" in line)
    assert float(line.split()[-5]) == pytest.approx(ours, rel=1e-3)
    assert "filters 2 (Caffe's: 20), units 8 (Caffe's: 500), images of npz:" in text
    assert "mnist-16.npz, 4 epochs, at most 300 training images (the paper: all)" in text
    assert "training on pgd (the paper: plain)" in text


def test_no_attack_is_called_the_robustness(view):
    text = "\n".join(view.lines)
    assert "the robustness" not in text
    assert text.count("upper bound: attack ") + text.count("upper bound: attack,") >= 2
    assert text.count("lower bound: the paper's formulas") == 2


def test_both_ends_of_the_robust_net(view, runs):
    model, x, y = subject(runs[1])
    x, y = x[:6], y[:6]
    chain = lower_bounds(model, x, y, norm="linf", linear=False).radius
    better = lower_bounds(model, x, y, norm="linf").radius
    (net,) = measured(runs[1], Reporter())
    assert net.ends.chain == pytest.approx(chain.tolist())
    assert net.ends.lower == pytest.approx(better.tolist())
    upper = np.array(net.ends.upper)
    assert (upper >= np.array(net.ends.lower)).all()
    assert ((upper == 0) == ~correct(model, x, y).numpy()).all()
    (line,) = [line for line in view.lines if line.startswith("  at ε = 0.01")]
    assert f"layer by layer {int((chain > 0.01).sum())} of 6" in line
    assert f"relaxation {int((better > 0.01).sum())};" in line
    assert f"an attack breaks {int((upper <= 0.01).sum())};" in line
    ends = np.array([*net.ends.chain, *net.ends.lower, *net.ends.upper])
    for epsilon in (0.3, *ends, *(0.75 * ends)):
        told = bounds_module._ends(replace(net.ends, epsilon=epsilon))[-1]
        certified, broken = int((better > epsilon).sum()), int((upper <= epsilon).sum())
        assert f"layer by layer {int((chain > epsilon).sum())} of 6, with linear" in told
        assert told.endswith(
            f"relaxation {certified}; an attack breaks {broken}; not known {6 - certified - broken}"
        )
    (plain,) = measured(runs[0], Reporter())
    assert plain.ends is None
    assert len(view.figure.axes) == 4


def test_a_planted_violation_is_counted_and_shown(runs, view):
    """A record with a bound above an attack, and a certified one."""
    record = runs[0].path / "trials" / "0" / MEASURED
    kept = record.read_text()
    planted = json.loads(kept)
    attacked = [i for i, size in enumerate(planted["attacks"]) if size is not None][:3]
    for i in attacked:
        planted["bounds"]["tight"][i] = 10 * planted["attacks"][i]
    record.write_text(json.dumps(planted))
    try:
        found = bounds(runs, Reporter())
    finally:
        record.write_text(kept)
    of_tight = found.table[found.table["of"] == "tight"]
    assert of_tight["violations"].tolist() == [3, 0]
    assert of_tight["least_log10_ratio"].tolist()[0] == pytest.approx(-1)
    lines = [line for line in found.lines if line.startswith("Attacks below the lower bound")]
    assert [": 3 of" in line and "WRONG" in line for line in lines] == [False, False, True] + [
        False
    ] * 3
    assert not any("WRONG" in line for line in view.lines)
    assert found.figure.axes[2].lines[2].get_label() == "tight, 3 below 0"


def test_what_was_measured_is_not_measured_again(runs, view, monkeypatch, tmp_path):
    def refuse(*_arguments, **_settings):
        raise AssertionError("measured again")

    monkeypatch.setattr("launch.papers.peck.measured.minimal_fgsm", refuse)
    again = bounds(runs, Reporter())
    assert again.lines == view.lines
    table, picture = write_view(tmp_path, "peck-mnist", again)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert len(table.read_text().splitlines()) == 11
    record = runs[0].path / "trials" / "0" / MEASURED
    kept = record.read_text()
    record.write_text(json.dumps({**json.loads(kept), "key": "another"}))
    try:
        with pytest.raises(AssertionError, match="measured again"):
            bounds(runs, Reporter())
    finally:
        record.write_text(kept)


def test_printed_numbers():
    """Tables 1 and 2; their caps and gaps, as the reference recomputed them."""
    assert printed_for("mnist") is MNIST
    assert printed_for("npz:/data/cifar10-small.npz") is CIFAR
    assert printed_for("fashion-mnist") is None
    for rows, side, gap in ((MNIST, 784, 7.1), (CIFAR, 3072, 10.7)):
        assert rows.fgs[4] <= 100 * np.sqrt(side) / side
        assert np.log10(rows.fgs[0] / rows.bounds[0]) == pytest.approx(gap, abs=0.05)
        for mean, median, sd, low, high in (rows.fgs, rows.bounds):
            assert low < min(mean, median) <= max(mean, median) < high
            assert sd < high


def test_the_full_searches_are_caffes_lenet():
    for name in ("peck-mnist", "peck-cifar10"):
        asked = REPRODUCTIONS[name]
        config = load_config(asked.searches[0])
        assert config.space == {"name": "lenet", "filters": [20], "units": [500]}
        assert config.data.limit.train is None
        assert config.data.limit.test == 1000
        assert asked.configs(asked.sources(quick=True, data=None), [])
