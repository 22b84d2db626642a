"""Logit differences against plain sorting, and what is no number."""

from __future__ import annotations

import math

import pytest
import torch
from public import images, net, seeded
from torch import nn

from metrics.universality import logit_differences


class Answering(nn.Module):
    """Answers given logits, in order."""

    def __init__(self, *rows):
        super().__init__()
        self.rows = torch.tensor(rows)

    def forward(self, x):
        return self.rows[(x.flatten(1)[:, 0] * len(self.rows)).long()]


def numbered(n):
    """Return images whose pixels say which they are."""
    return ((torch.arange(n) + 0.5) / n).view(n, 1, 1, 1).expand(n, 1, 2, 2).contiguous()


def test_they_are_the_largest_less_each_other():
    model, x = net(classes=5), images(20)
    with torch.no_grad():
        logits = model(x).double()
    expected = [sorted(max(row) - v for v in row)[1:] for row in logits.tolist()]
    found = logit_differences(model, x)
    assert found.dtype == torch.float64
    assert torch.allclose(found, torch.tensor(expected).double(), rtol=1e-6, atol=1e-7)
    for size in (1, 7, 100):
        assert torch.allclose(logit_differences(model, x, batch_size=size), found, atol=1e-6)


def test_float64_stays_float64():
    model, x = net().double(), images().double()
    with torch.no_grad():
        ranked = model(x).sort(dim=1, descending=True).values
    assert torch.allclose(logit_differences(model, x), ranked[:, :1] - ranked[:, 1:], rtol=1e-13)


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        ([1.0, 4.0, 2.0], [2.0, 3.0]),
        ([3.0, 1.0, 3.0], [0.0, 2.0]),
        ([0.0, 0.0, 0.0], [0.0, 0.0]),
        ([1.0, -math.inf, 3.0], [2.0, math.inf]),
        ([-math.inf, -math.inf, 3.0], [math.inf, math.inf]),
        ([1.0, math.nan, 3.0], [math.nan, math.nan]),
        ([1.0, math.inf, 3.0], [math.nan, math.nan]),
        ([math.inf, math.inf, 3.0], [math.nan, math.nan]),
        ([-math.inf, -math.inf, -math.inf], [math.nan, math.nan]),
    ],
)
def test_ties_and_what_is_no_number(logits, expected):
    """One image's fault is none of its neighbour's."""
    found = logit_differences(Answering(logits, [1.0, 0.0, 0.5]), numbered(2))
    assert found[0].tolist() == pytest.approx(expected, nan_ok=True)
    assert found[1].tolist() == [0.5, 1.0]


def test_two_classes_have_one_difference():
    found = logit_differences(Answering([0.25, 1.0], [3.0, 1.0]), numbered(2))
    assert found.tolist() == [[0.75], [2.0]]


def test_dropout_is_off_and_comes_back():
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 3)).train()
    x = torch.rand(9, 1, 4, 4, generator=seeded())
    assert torch.equal(logit_differences(model, x), logit_differences(model, x))
    assert all(module.training for module in model.modules())
