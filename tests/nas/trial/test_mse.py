"""The loss ``mse``: of two logits the mean squared error of a sigmoid, of more by hand."""

from __future__ import annotations

import math

import pytest
import torch

from nas.trial.minibatch import batch_loss
from nas.trial.recipe import Recipe

MSE = Recipe(loss="mse", adversary="none")


class Answers(torch.nn.Module):
    """Logits of every image, as a parameter."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor(logits))

    def forward(self, x):
        return self.logits


def loss_of(logits, labels, recipe=MSE):
    model = Answers(logits)
    x, y = torch.rand(len(labels), 1, 2, 2), torch.tensor(labels)
    loss = batch_loss(model, x, y, recipe, None, torch.Generator())
    loss.backward()
    return loss.item(), model.logits.grad.tolist()


def test_of_two_logits_it_is_the_squared_error_of_a_sigmoid():
    """And its gradient 2 (s - l) s (1 - s) / N in the second logit, minus that in the first."""
    logits, labels = [[0.5, -1.0], [-2.0, 1.5], [3.0, 0.25]], [0, 1, 1]
    sigmoids = [1 / (1 + math.exp(a - b)) for a, b in logits]
    loss, gradient = loss_of(logits, labels)
    pairs = list(zip(sigmoids, labels, strict=True))
    assert loss == pytest.approx(sum((s - label) ** 2 for s, label in pairs) / 3, rel=1e-5)
    for row, (s, label) in zip(gradient, pairs, strict=True):
        slope = 2 * (s - label) * s * (1 - s) / 3
        assert row == pytest.approx([-slope, slope], rel=1e-4)


def test_of_more_classes_it_is_the_mean_over_them():
    logits, labels = [[1.0, 0.0, -1.0], [0.0, 2.0, 0.5]], [2, 1]
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        powers = [math.exp(z) for z in row]
        for c, power in enumerate(powers):
            total += (power / sum(powers) - (c == label)) ** 2
    assert loss_of(logits, labels)[0] == pytest.approx(total / 6, rel=1e-5)


def test_cross_entropy_is_the_default():
    assert Recipe().loss == "cross-entropy"
    logits = [[0.0, 1.0]]
    loss, _ = loss_of(logits, [0], Recipe(adversary="none"))
    assert loss == pytest.approx(math.log(1 + math.e), rel=1e-5)
