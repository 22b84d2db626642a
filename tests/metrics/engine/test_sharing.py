"""Metrics of one model share its copy and its clean answers, and say the same as alone."""

from __future__ import annotations

import pytest
import torch
from public import images, net, seeded, top
from torch import nn

from metrics import FGSM, PGD, correct, minimal_fgsm, robust_accuracy, susceptibility
from metrics.engine import evaluator, folding
from metrics.engine.sharing import sharing
from metrics.susceptibility import exploration

ATTACK = PGD(epsilon=0.05, steps=2)


class Counted(nn.Module):
    """Counts the images that go through it; no copy can be made of it."""

    def __init__(self):
        super().__init__()
        self.net, self.seen = net(), []

    def forward(self, x):
        self.seen.append(len(x) if float(x.detach().sum()) < torch.inf else 0)
        return self.net(x)


@pytest.fixture
def clean():
    x = images(12)
    return x, top(net(), x)


def looked_at(model, call):
    """Return what ``call`` gives and how many images it showed the model."""
    model.seen.clear()
    return call(), sum(model.seen)


def test_the_copy_is_made_once(monkeypatch, clean):
    made = []

    def counted(model, images):
        made.append(model)
        return folding.fast_copy(model, images)

    for module in (evaluator, exploration):
        monkeypatch.setattr(module, "fast_copy", counted)
    model, (x, y) = net(), clean

    def measures():
        return (
            robust_accuracy(model, x, y, ATTACK, generator=seeded()).robust,
            robust_accuracy(model, x[:5], y[:5], FGSM()).robust,
            minimal_fgsm(model, x, y).size,
            susceptibility(model, x, generator=seeded()).psi,
        )

    alone = measures()
    assert len(made) == 4
    made.clear()
    with sharing(model):
        together = measures()
    assert made == [model]
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_clean_answers_are_given_once(clean):
    """Also to those who look at the first images alone."""
    model, (x, y) = Counted(), clean
    with sharing(model):
        first, some = looked_at(model, lambda: correct(model, x, y))
        assert some >= 12
        for count in (12, 5):
            found, more = looked_at(model, lambda n=count: correct(model, x[:n], y[:n]))
            assert more == 0
            assert torch.equal(found, first[:count])
        found[0] = ~found[0]  # a result is its caller's
        assert torch.equal(correct(model, x, y), first)
    assert looked_at(model, lambda: correct(model, x, y))[1] >= 12


@pytest.mark.parametrize("which", ["images", "labels", "more", "in place"])
def test_other_images_and_labels_are_looked_at(which, clean):
    model, (x, y) = Counted(), clean
    wrong = (y + 1) % 4
    with sharing(model):
        correct(model, x[:5], y[:5])
        if which == "in place":
            y[:] = wrong
            found, more = looked_at(model, lambda: correct(model, x[:5], y[:5]))
            assert more >= 5
            assert not found.any()
        elif which == "labels":
            found, more = looked_at(model, lambda: correct(model, x[:5], wrong[:5]))
            assert more >= 5
            assert not found.any()
        elif which == "images":
            assert looked_at(model, lambda: correct(model, x[5:10], y[5:10]))[1] >= 5
        else:
            found, more = looked_at(model, lambda: correct(model, x, y))
            assert more >= 12
            assert found.all()


def test_another_model_shares_nothing(clean):
    """Nor does the same one after the block."""
    model, other, (x, y) = Counted(), Counted(), clean
    other.net[5].bias.data += torch.tensor([100.0, 0, 0, 0])
    with sharing(model):
        assert correct(model, x, y).all()
        assert torch.equal(correct(other, x, y), y == 0)
        with sharing(other):
            assert torch.equal(correct(other, x, y), y == 0)
            assert torch.equal(correct(other, x, y), y == 0)
            assert correct(model, x, y).all()
        with sharing(model):
            assert looked_at(model, lambda: correct(model, x, y))[1] == 0
    model.net[5].bias.data += torch.tensor([100.0, 0, 0, 0])
    assert torch.equal(correct(model, x, y), y == 0)
