"""``psinas bracket``: both ends of a finished model's images, printed, in a table, drawn."""

from __future__ import annotations

import sys
import types

import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn


def net() -> nn.Module:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    model = nn.Sequential(body, nn.Linear(36, 10))
    digits = load_digits()
    x = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    y = torch.tensor(digits.target)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model


@pytest.fixture
def mine(monkeypatch):
    module = types.ModuleType("mine")
    module.net = net
    module.normed = lambda: nn.Sequential(nn.GroupNorm(1, 1), nn.Flatten(), nn.Linear(64, 10))
    monkeypatch.setitem(sys.modules, "mine", module)
    return "mine:net"


def test_both_ends_are_printed_and_written(mine, psinas, tmp_path):
    out = tmp_path / "ends.csv"
    code, told, err = psinas(
        "bracket", mine, "--data", "digits", "--limit", 12, "--epsilon", "25/255", "--layers",
        "--budget", 40, "--out", out,
    )  # fmt: skip
    assert (code, err) == (0, "")
    table = pd.read_csv(out)
    assert list(table) == ["image", "label", "lower", "upper", "lower_by", "upper_by"]
    assert len(table) == 12
    assert (table.lower <= table.upper).all()
    right = table.upper > 0
    assert right.sum() >= 8
    assert (table.lower[right] > 0).all()
    assert (table.upper_by[~right] == "clean").all()
    plain = " ".join(told.split())
    assert f"of 12, {right.sum()} of them right" in told
    assert f"{table.lower.median():.6g}" in told
    broken = (table.upper <= 25 / 255).mean()
    assert f"broken at 0.09804 {100 * broken:.1f} %" in plain
    assert "data   digits, 12 test images, seed 0" in told
    for layer in ("1 ", "0.2 ", "0.1 ", "0.0 ", "max σ(Ŵ)", "exact"):
        assert layer in told
    assert (tmp_path / "ends.png").stat().st_size > 10_000


def test_no_epsilon_no_shares(mine, psinas):
    code, told, _ = psinas(
        "bracket", mine, "--data", "digits", "--limit", 4, "--norm", "l2", "--budget", 20,
        "--no-linear",
    )  # fmt: skip
    assert code == 0
    assert "certified" not in told
    assert "by linear relaxation   0" in told


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["mine:normed", "--data", "digits"], "no bound is known for aten.group_norm"),
        (["mine:net"], "--data: expected a dataset, got none"),
        (["mine:net", "--data", "digits", "--epsilon", "far"], "--epsilon: expected a number"),
        (["mine:net", "--data", "digits", "--epsilon", "-1"], "epsilon: expected a pixel distance"),
        (["mine:net", "--data", "digits", "--out", "ends.png"], "--out: expected a file that ends"),
    ],
)
def test_a_mistake_is_one_line(mine, psinas, arguments, line):
    code, out, err = psinas("bracket", *arguments)
    assert code == 2
    assert out == ""
    assert line in err
    assert err.count("\n") == 1
