"""Figures 8 and 15 of Cubuk et al.: what adversarial images do to two nets, one by one."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from launch.papers.cubuk.figure8 import examples, figure_8, figure_15
from launch.papers.cubuk.winners import retrained_winner
from launch.show.reporter import Reporter
from nas.data.arrays import as_float
from nas.data.datasets import load_test_images

pytestmark = pytest.mark.xdist_group("cubuk winners")  # trained once

CLASSES = [7, 3, 8, 1]


@pytest.fixture
def view(runs):
    return figure_8(runs[:2], Reporter())


def models(runs):
    return {
        "winner": retrained_winner(runs[1]).model(),
        "baseline": retrained_winner(runs[0]).model(),
    }


def sign(model, x, y):
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(functional.cross_entropy(model(x), y, reduction="sum"), x)
    return gradient.sign()


def shown(runs, view):
    """Return the images of the dataset that the table names, and their labels."""
    config = runs[1].config.data
    images = load_test_images(config)
    pixels = as_float(torch.from_numpy(images.pixels[view.table["index"]]))
    labels = [CLASSES.index(label) for label in images.labels[view.table["index"]]]
    return pixels, torch.tensor(labels)


def test_every_answer_asked_anew(runs, view):
    x, y = shown(runs, view)
    assert len(view.table) == 60
    assert view.table["label"].tolist() == y.tolist()
    nets = models(runs)
    adversarial = (x + 0.1 * sign(nets["winner"], x, y)).clamp(0, 1)
    for name, model in nets.items():
        for images, answer, sure in (
            (x, f"{name}_clean", f"{name}_confidence"),
            (adversarial, f"{name}_adversarial", f"{name}_adversarial_confidence"),
        ):
            probabilities = model(images).detach().softmax(1)
            assert view.table[answer].tolist() == probabilities.argmax(1).tolist()
            assert view.table[sure].tolist() == pytest.approx(probabilities.amax(1).tolist(), 1e-4)


def test_the_smallest_epsilon_fools_and_hardly_less_does_not(runs, view):
    x, y = shown(runs, view)
    for name, model in models(runs).items():
        size = torch.tensor(view.table[f"{name}_epsilon"].tolist())
        step = sign(model, x, y)
        wrong = model(x).argmax(1) != y
        assert torch.equal(size == 0, wrong)
        some = (size > 0) & size.isfinite()
        assert int(some.sum()) > 5
        at = (x + size[:, None, None, None] * step)[some].clamp(0, 1)
        assert (model(at).argmax(1) != y[some]).all()
        less = (x + (size - 0.11 / 255)[:, None, None, None] * step)[some].clamp(0, 1)
        assert (model(less).argmax(1) == y[some]).double().mean() > 0.9
        never = size.isinf()
        far = (x + 100 / 255 * step)[never].clamp(0, 1)
        assert (model(far).argmax(1) == y[never]).all()


def test_the_kinds_are_of_images_that_the_winner_gets_right(view):
    table = view.table
    right = table["winner_clean"] == table["label"]
    fooled = table["winner_adversarial"] != table["label"]
    assert table["kind"].tolist() == [
        "" if not r else "fools" if f else "does not fool"
        for r, f in zip(right, fooled, strict=True)
    ]
    assert {"fools", "does not fool"} <= set(table["kind"])
    both = (
        f"fools it on {int((right & fooled).sum())} and does not on {int((right & ~fooled).sum())}"
    )
    assert any(both in line for line in view.lines)


@pytest.mark.parametrize(("figure", "many"), [(figure_8, 10), (figure_15, 40)])
def test_the_picture_has_the_first_of_each_kind(runs, figure, many):
    view = figure(runs[:2], Reporter())
    for kind in ("fools", "does not fool"):
        of_kind = view.table[view.table["kind"] == kind]
        first = min(many, len(of_kind))
        assert of_kind["shown"].tolist() == [True] * first + [False] * (len(of_kind) - first)
    titles = [axes.get_title() for axes in view.figure.axes if axes.images]
    rows = view.table[view.table["shown"]]
    expected = [
        f"{row['index']}: {CLASSES[row['label']]}\n"
        f"winner {CLASSES[row['winner_adversarial']]} "
        f"{100 * row['winner_adversarial_confidence']:.0f} %\n"
        f"baseline {CLASSES[row['baseline_adversarial']]} "
        f"{100 * row['baseline_adversarial_confidence']:.0f} %"
        for kind in ("fools", "does not fool")
        for row in rows[rows["kind"] == kind].to_dict("records")
    ]
    assert titles == expected


def test_the_picture_is_the_adversarial_image(runs, view):
    x, y = shown(runs, view)
    moved = (x + 0.1 * sign(models(runs)["winner"], x, y)).clamp(0, 1)
    drawn = {
        int(axes.get_title().partition(":")[0]): axes.images[0].get_array()
        for axes in view.figure.axes
        if axes.images
    }
    places = view.table["index"].tolist()
    assert len(drawn) == int(view.table["shown"].sum()) > 10
    for index, pixels in drawn.items():
        assert torch.tensor(pixels.tolist()).allclose(moved[places.index(index), 0], atol=1e-6)


def test_a_second_call_reads_what_was_kept(runs, view, monkeypatch):
    monkeypatch.setattr("launch.papers.cubuk.figure8._measure", None)
    again = examples(runs[1], runs[0])
    columns = [name for name in view.table if name not in ("kind", "shown")]
    assert again.table[columns].equals(view.table[columns])
    assert math.inf in again.table["winner_epsilon"].tolist() or again.table.notna().all().all()
