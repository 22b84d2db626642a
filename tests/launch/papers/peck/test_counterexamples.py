"""The counterexamples: the numbers of the reference, and real changes of answer below bounds."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.linalg import toeplitz

from launch.papers.peck import counterexamples as module
from launch.papers.peck import examples
from launch.papers.peck.counterexamples import counterexamples
from launch.papers.peck.examples import Example, blurred, by_slope, one_sigmoid, stretches

KNOWN = {
    "blur 5 x 5": (0.257143, 1.2000, 0.2400),
    "blur 3 x 3": (0.149492, 0.420, 0.140),
    "one sigmoid unit": (0.7803, 1.4370, 0.1441),
}
"""Smallest perturbation, the paper's bound, the certified one."""


@pytest.fixture(scope="module")
def view():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SEEDS", (0, 2))
        return counterexamples([], None)


@pytest.mark.parametrize("name", KNOWN)
def test_the_reference_has_these_numbers(view, name):
    (row,) = view.table[view.table["example"].str.startswith(name)].to_dict("records")
    smallest, paper, certified = KNOWN[name]
    assert row["smallest"] == pytest.approx(smallest, abs=5e-5)
    assert row["known"] == "exact"
    assert row["paper"] == pytest.approx(paper, abs=5e-5)
    assert row["certified"] == pytest.approx(certified, abs=5e-5)
    assert row["certified"] <= row["tight"] * (1 + 1e-9)
    assert (row["paper_certified"], row["certified_certified"]) == (False, True)
    assert (row["paper_refuted"], row["certified_refuted"], row["tight_refuted"]) == (
        True, False, False,
    )  # fmt: skip
    (line,) = [line for line in view.lines if line.startswith(name)]
    assert "1.4370 WRONG" in line or f"{paper:.4f} WRONG" in line
    assert line.count("WRONG") == 1


def test_the_first_order_of_the_sigmoid(view):
    assert by_slope() == pytest.approx(0.04, abs=1e-6)
    assert any(line.endswith("gives 0.0400.") for line in view.lines)


def test_a_blur_by_hand():
    """The net itself, along the normal of the sum: by numpy, without the program's code."""
    example = blurred(3, 16)
    windows = np.convolve(np.ones(14), np.ones(3))
    cover = np.outer(windows, windows)
    total = 0.5 * cover.sum()
    assert example.smallest == pytest.approx(0.02 * total / np.linalg.norm(cover))
    assert example.bounds["paper"] == pytest.approx(0.02 * total / (3 * 14), rel=1e-4)


def test_a_formula_that_the_net_contradicts_is_an_error(monkeypatch):
    right = one_sigmoid()
    image, along = (
        torch.full((1, 1, 10, 10), 0.1).double(),
        torch.full((1, 1, 10, 10), 0.1).double(),
    )
    unit = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(100, 2)).double().eval()
    with pytest.raises(RuntimeError, match="expected another answer from"):
        examples._known("a plane", unit, image, right.smallest, 0 * along)


def test_stretches_are_norms_of_matrices(view):
    overlapping, apart = stretches()
    band = toeplitz(np.r_[1, np.zeros(23)], np.r_[np.ones(5), np.zeros(23)])
    assert overlapping.norm == pytest.approx(np.linalg.norm(band, 2) ** 2)
    assert overlapping.norm == pytest.approx(24.295, abs=1e-3)
    found = {mode: pytest.approx(v, rel=1e-4) for mode, v in overlapping.gains.items()}
    assert found == {"paper": 5, "certified": 25, "tight": 25}
    assert apart.norm == pytest.approx(3)
    assert list(apart.gains.values()) == pytest.approx([3, 3, 3], rel=1e-4)
    text = "\n".join(view.lines)
    assert re.search(r"ones 5 x 5.* 24\.295 +5\.000 WRONG +25\.000 +25\.000", text)
    assert re.search(r"ones 3 x 3.* 3\.000 +3\.000 +3\.000 +3\.000", text)


def test_trained_nets_refute_the_printed_bound_alone(view):
    rows = view.table[view.table["example"].str.startswith("trained")]
    assert len(rows) == 32
    assert (rows["known"] == "attack").all()
    assert rows["paper_refuted"].sum() >= 5
    assert not rows["certified_refuted"].any()
    assert not rows["tight_refuted"].any()
    for mode in ("paper", "certified", "tight"):
        below = view.table[mode] > view.table["smallest"]
        assert (view.table[f"{mode}_refuted"] == below).all()
        count = int(below.sum())
        assert f"Bounds refuted, mode {mode}: {count} of {len(view.table)}." in view.lines


def test_a_refuted_bound_that_calls_itself_certified_is_said(view):
    planted = Example("x", 1.0, True, {"paper": 2.0, "certified": 2.0, "tight": 0.5},
                      {"paper": False, "certified": True, "tight": True})  # fmt: skip
    assert module._verdict([planted]) == [
        "Bounds refuted, mode paper: 1 of 1.",
        "Bounds refuted, mode certified: 1 of 1; 1 of them called themselves certified: AN ERROR.",
        "Bounds refuted, mode tight: 0 of 1.",
    ]


def test_the_picture_shows_every_mode(view):
    left, right = view.figure.axes
    placed = [line.get_xdata() for line in left.lines[:3]]
    assert placed[0] == pytest.approx([1.2 / 0.257143, 0.42 / 0.149492, 1.4370 / 0.7803], rel=1e-3)
    assert (np.array(placed[1]) < 1).all()
    rows = view.table[view.table["known"] == "attack"]
    shown = np.isfinite(rows["smallest"])
    for line, mode in zip(right.lines, ("paper", "certified", "tight"), strict=False):
        assert line.get_ydata() == pytest.approx(rows[mode][shown].to_numpy())


@pytest.mark.slow
def test_the_command_writes_all_of_it(psinas, tmp_path):
    code, out, err = psinas("reproduce", "peck-counterexamples", "--out", tmp_path)
    assert code == 0, err
    assert "Bounds refuted, mode tight: 0 of 67." in out
    table = pd.read_csv(tmp_path / "peck-counterexamples.csv")
    assert len(table) == 67
    assert (tmp_path / "peck-counterexamples.png").read_bytes().startswith(b"\x89PNG")
